//! Any order of operations against the registry, on a machine that is made up.

mod machine;
mod model;
mod rules;
mod steps;

use proptest::prelude::*;

pub(crate) use machine::Fake;
use steps::{Step, World};

fn cases() -> u32 {
    if super::full() { 20_000 } else { 1_000 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// After every step the rules of `rules.rs` hold.
    #[test]
    fn the_rules_hold_whatever_happens(steps in prop::collection::vec(Step::any(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            rules::check(&world, step);
        }
    }

    /// A replay of what was journalled is the same registry, and decides the same.
    #[test]
    fn a_replay_is_the_same_registry(
        steps in prop::collection::vec(Step::any(), 1..60),
        next in Step::allocate(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        let mut again = world.replayed();
        prop_assert_eq!(world.values(), again.values());
        let (first, second) = (world.take(&next), again.take(&next));
        prop_assert_eq!(first, second);
    }

    /// What was rolled back never was.
    #[test]
    fn a_rollback_leaves_no_trace(
        steps in prop::collection::vec(Step::any(), 1..40),
        refused in Step::any(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        let before = (world.values(), world.seen());
        world.take_and_roll_back(&refused);
        prop_assert_eq!(before, (world.values(), world.seen()));
    }
}
