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
    everything_that_lives_is_held(world, step);
    nothing_that_is_held_ends(world, step);
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

/// What holds an allocation, worked out anew from the machine's facts.
fn is_held(world: &World, allocation: &Allocation) -> bool {
    let listens = world.machine.sockets.get(&allocation.port).is_some_and(|socket| socket.own);
    let owner = allocation.owner.is_some_and(|owner| {
        let alive = world.machine.alive.contains(&owner.process);
        let has_served = owner.implicit && world.listened.contains(&allocation.lock_id);
        alive && !has_served
    });
    let instance = allocation.owner.is_none()
        && allocation.instance_id.as_ref().is_some_and(|id| {
            world.registry.instances().any(|instance| instance.instance_id == *id)
        });
    let lease = allocation
        .lease
        .is_some_and(|lease| Duration::from_millis(lease.until_ms) > world.now.monotonic);
    listens || owner || instance || lease
}

fn everything_that_lives_is_held(world: &World, step: &Step) {
    for allocation in world.registry.allocations() {
        assert!(is_held(world, allocation), "{step:?} left {allocation:?}");
    }
}

fn nothing_that_is_held_ends(world: &World, step: &Step) {
    if matches!(step, Step::Release(_) | Step::Cleanup { force: true, .. }) {
        return;
    }
    for allocation in &world.before {
        if world.registry.allocation(allocation.lock_id).is_none() {
            assert!(!is_held(world, allocation), "{step:?} ended {allocation:?}");
        }
    }
}
