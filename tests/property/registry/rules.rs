//! The rules of the design, as plainly as they can be said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use styxy::registry::Allocation;

use super::steps::{Step, World};

pub(crate) fn check(world: &World, step: &Step) {
    ports_are_not_shared(world);
    assignments_are_not_shared(world);
    allocations_are_never_probed(world, step);
    forbidden_ports_are_never_given(world);
    what_is_held_lives_and_nothing_else(world, step);
    an_instance_lives_while_it_is_heard_of(world, step);
    no_deadline_is_slept_through(world, step);
}

fn ports_are_not_shared(world: &World) {
    let mut taken = BTreeSet::new();
    for allocation in world.registry.allocations() {
        let Allocation { port, protocol, .. } = allocation;
        if protocol.has_tcp() {
            assert!(taken.insert((*port, "tcp")), "two allocations have {port}/tcp");
        }
        if protocol.has_udp() {
            assert!(taken.insert((*port, "udp")), "two allocations have {port}/udp");
        }
    }
}

fn assignments_are_not_shared(world: &World) {
    let mut ports = BTreeMap::new();
    for assignment in world.registry.assignments() {
        let other = ports.insert(assignment.port, &assignment.key);
        assert_eq!(other, None, "two services are assigned {}", assignment.port);
    }
}

fn allocations_are_never_probed(world: &World, step: &Step) {
    if let Step::Allocate(wish) = step {
        for allocation in &world.before {
            let shares = allocation.protocol.has_tcp() && wish.protocol.has_tcp()
                || allocation.protocol.has_udp() && wish.protocol.has_udp();
            let probed = world.machine.probed.contains(&allocation.port);
            assert!(!(shares && probed), "{step:?} probed {allocation:?}");
        }
    }
}

fn forbidden_ports_are_never_given(world: &World) {
    for allocation in world.registry.allocations() {
        assert!(![6000, 8003, 9876].contains(&allocation.port), "{allocation:?}");
    }
}

/// Held is what lives, and nothing else: by whom, and until when.
fn what_is_held_lives_and_nothing_else(world: &World, step: &Step) {
    let expected = world.model.lives.iter().map(|(lock_id, life)| {
        let until = life.lease.map(|lease| lease.until);
        (*lock_id, (life.port, life.owner, life.instance_id.as_ref(), until))
    });
    let found = world.registry.allocations().map(|it| {
        let until = it.lease.map(|lease| Duration::from_millis(lease.until_ms));
        (it.lock_id, (it.port, it.owner, it.instance_id.as_ref(), until))
    });
    let (found, expected): (BTreeMap<_, _>, BTreeMap<_, _>) = (found.collect(), expected.collect());
    assert_eq!(found, expected, "after {step:?}");
}

fn an_instance_lives_while_it_is_heard_of(world: &World, step: &Step) {
    let found: Vec<_> = world.registry.instances().map(|it| &it.instance_id).collect();
    let expected: Vec<_> = world.model.instances.keys().collect();
    assert_eq!(found, expected, "after {step:?}");
}

/// Whoever waits for the next deadline misses nothing.
fn no_deadline_is_slept_through(world: &World, step: &Step) {
    if let Some(end) = world.model.first_end() {
        let deadline = world.registry.next_deadline();
        assert!(deadline.is_some_and(|it| it <= end), "{step:?}: {deadline:?}, not {end:?}");
    }
}
