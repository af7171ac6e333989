//! Whose listener it is: the rule that says whether a process that listens on an allocated port
//! belongs to the allocation.
//!
//! A socket's process decides, never the port number. Containers are not processes of this rule:
//! their engine's socket or proxy is the listener, and their place is beside [`tie`].

use std::path::Path;

use uuid::Uuid;

use super::ProcessFacts;
use crate::registry::Process;

/// What an allocation says of the processes that belong to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    /// Our user.
    pub(super) uid: u32,
    /// Its lock id.
    pub(super) lock_id: Uuid,
    /// Its owner, if that lives.
    pub(super) owner: Option<Process>,
    /// The session of a living owner.
    pub(super) session: Option<u32>,
    /// Its project's root.
    pub(super) project: Option<&'a Path>,
}

/// Why a process belongs to an allocation, the closest tie first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tie {
    /// It is the owner.
    Owner,
    /// The owner started it, or started what started it.
    Descendant,
    /// It was started with the allocation's `STYXY_LOCK_ID`.
    LockId,
    /// It is in the owner's session.
    Session,
    /// It works inside the project.
    Project,
    /// No owner lives, and it is a process of this user.
    Ownerless,
}

/// The closest tie between an allocation and a process; none when it is a stranger.
pub(super) fn tie(claim: &Claim<'_>, facts: &ProcessFacts) -> Option<Tie> {
    if claim.owner == Some(facts.process) {
        Some(Tie::Owner)
    } else if claim.owner.is_some_and(|owner| facts.ancestors.contains(&owner)) {
        Some(Tie::Descendant)
    } else if facts.lock_id == Some(claim.lock_id) {
        Some(Tie::LockId)
    } else if claim.session.is_some() && claim.session == facts.session {
        Some(Tie::Session)
    } else if works_inside(facts, claim.project) {
        Some(Tie::Project)
    } else if claim.owner.is_none() && facts.uid == claim.uid {
        Some(Tie::Ownerless)
    } else {
        None
    }
}

fn works_inside(facts: &ProcessFacts, project: Option<&Path>) -> bool {
    facts.cwd.as_deref().zip(project).is_some_and(|(cwd, project)| cwd.starts_with(project))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 1000;
    const OWNER: Process = Process { pid: 50, start_ticks: 500 };
    const LOCK_ID: Uuid = Uuid::from_u128(7);

    fn claim() -> Claim<'static> {
        let project = Some(Path::new("/home/u/shop"));
        Claim { uid: OURS, lock_id: LOCK_ID, owner: Some(OWNER), session: Some(40), project }
    }

    /// A process of this user that has nothing to do with the allocation.
    fn stranger() -> ProcessFacts {
        ProcessFacts {
            process: Process { pid: 90, start_ticks: 900 },
            uid: OURS,
            name: "node".to_owned(),
            cwd: Some("/home/u/blog".into()),
            session: Some(80),
            ancestors: vec![Process { pid: 80, start_ticks: 800 }],
            lock_id: Some(Uuid::from_u128(8)),
        }
    }

    #[test]
    fn every_tie_makes_a_listener_own() {
        let recycled = Process { start_ticks: 501, ..OWNER };
        let table = [
            ("nothing", stranger(), None),
            ("the owner", ProcessFacts { process: OWNER, ..stranger() }, Some(Tie::Owner)),
            ("the owner's pid again", ProcessFacts { process: recycled, ..stranger() }, None),
            (
                "a grandchild",
                ProcessFacts { ancestors: vec![recycled, OWNER], ..stranger() },
                Some(Tie::Descendant),
            ),
            (
                "a child of the owner's pid again",
                ProcessFacts { ancestors: vec![recycled], ..stranger() },
                None,
            ),
            (
                "the same environment",
                ProcessFacts { lock_id: Some(LOCK_ID), ..stranger() },
                Some(Tie::LockId),
            ),
            ("the session", ProcessFacts { session: Some(40), ..stranger() }, Some(Tie::Session)),
            ("no session", ProcessFacts { session: None, ..stranger() }, None),
            (
                "in the project's root",
                ProcessFacts { cwd: Some("/home/u/shop".into()), ..stranger() },
                Some(Tie::Project),
            ),
            (
                "below the project's root",
                ProcessFacts { cwd: Some("/home/u/shop/apps/web".into()), ..stranger() },
                Some(Tie::Project),
            ),
            (
                "in a directory whose name only begins so",
                ProcessFacts { cwd: Some("/home/u/shop-2".into()), ..stranger() },
                None,
            ),
            ("in no directory", ProcessFacts { cwd: None, ..stranger() }, None),
        ];
        for (what, facts, expected) in table {
            assert_eq!(tie(&claim(), &facts), expected, "{what}");
        }
    }

    #[test]
    fn without_a_living_owner_every_process_of_the_user_is_own() {
        let claim = Claim { owner: None, session: None, ..claim() };
        assert_eq!(tie(&claim, &stranger()), Some(Tie::Ownerless));
        assert_eq!(tie(&claim, &ProcessFacts { uid: 1001, ..stranger() }), None);
    }

    #[test]
    fn unknown_sessions_and_projects_are_no_tie() {
        let claim = Claim { session: None, project: None, ..claim() };
        assert_eq!(tie(&claim, &ProcessFacts { session: None, cwd: None, ..stranger() }), None);
    }

    #[test]
    fn the_closest_tie_counts() {
        let cwd = Some("/home/u/shop".into());
        let facts = ProcessFacts { cwd, lock_id: Some(LOCK_ID), process: OWNER, ..stranger() };
        assert_eq!(tie(&claim(), &facts), Some(Tie::Owner));
        assert!(Tie::Owner < Tie::Project);
    }
}
