//! What can happen to a cluster.

use super::people::People;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happens {
    Submit {
        job: u8,
        replicas: u8,
        variant: u8,
        /// How much it reserves, the usual if 0; 4 more where its replicas are a gang.
        limits: u8,
    },
    Stop {
        job: u8,
        index: Option<u8>,
    },
    Restart {
        job: u8,
        index: Option<u8>,
    },
    Scale {
        job: u8,
        replicas: u8,
    },
    /// The nodes carry out what they were told.
    Work,
    /// A run on a node ends by itself.
    Ends {
        node: u8,
        which: u8,
        code: u8,
    },
    /// The checks of a run on a node fail for a while.
    Sickens {
        node: u8,
        which: u8,
    },
    /// Reports arrive: so many, from a place in the queue, some of them again later.
    Arrive {
        from: u8,
        count: u8,
        again: bool,
    },
    Silent {
        node: u8,
    },
    /// The node is heard again and says hello.
    Back {
        node: u8,
    },
    /// The node says bye and is away for a while.
    Bye {
        node: u8,
    },
    /// The node loses everything it had.
    Forgets {
        node: u8,
    },
    Passes {
        seconds: u8,
    },
    /// Somebody promotes, pauses or continues an update.
    Steer {
        job: u8,
        which: u8,
    },
    Rollback {
        job: u8,
    },
    /// Somebody says something of a node, or asks for some.
    People(People),
}

impl Happens {
    /// Any number is something that happens; small ones are the plainest.
    pub(super) fn of(number: u32) -> Self {
        let [kind, a, b, c] = number.to_be_bytes();
        if kind >= 240 {
            return Self::People(People::of([kind, a, b, c]));
        }
        let (job, node) = (if a % 7 == 6 { 2 } else { a % 2 }, a % 3);
        let index = (b % 3 == 2).then_some(c % 3);
        match kind % 30 {
            0..=4 => Self::Work,
            5..=8 => Self::Submit {
                job,
                replicas: b % 4,
                variant: c,
                limits: (if a % 5 == 4 { a / 5 % 3 + 1 } else { 0 })
                    + (if b >= 192 { 4 } else { 0 }),
            },
            9..=13 => Self::Arrive {
                from: a,
                count: b % 5 + 1,
                again: c % 2 == 1,
            },
            14..=16 => Self::Ends {
                node,
                which: b % 4,
                code: c % 2,
            },
            17 => Self::Stop { job, index },
            18 => Self::Restart { job, index },
            19 => Self::Scale {
                job,
                replicas: b % 4,
            },
            20 => Self::Silent { node },
            21 => Self::Back { node },
            22 => Self::Bye { node },
            23 => Self::Forgets { node },
            24 => Self::Sickens { node, which: b % 4 },
            25 => Self::Steer { job, which: b },
            26 => Self::Rollback { job },
            _ => Self::Passes {
                seconds: b % 50 + 1,
            },
        }
    }
}
