//! What the docs say of a choice, by books of its own: plain words about machines, node by node,
//! nothing kept, nothing shared with the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::words::Strategy;

pub(super) const MIB: u64 = 1 << 20;

/// A node as the oracle knows it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) cores: u32,
    pub(super) gib: u64,
    /// Of three; none is in no rack.
    pub(super) rack: Option<&'static str>,
    pub(super) datacenter: Option<&'static str>,
    /// Whether it runs processes, as all tasks here are.
    pub(super) runs_processes: bool,
    /// The last of its ports that are given out, from [`FIRST_PORT`] on.
    pub(super) last_port: u16,
    pub(super) ssd: bool,
    pub(super) taint: GpuTaint,
    pub(super) disk_gib: u64,
    /// Mebibytes in a second, and processes, where they are counted.
    pub(super) disk_rate: Option<u64>,
    pub(super) pids: Option<u32>,
    /// Gpus of the first and of the second name.
    pub(super) gpus: [u32; 2],
    pub(super) standing: Standing,
    /// Percent of its cores that were measured to be in use.
    pub(super) busy: u32,
    /// What is reserved, as [`Wish::amounts`] has it.
    pub(super) used: [u64; AMOUNTS],
    /// Gpus that runs have.
    pub(super) used_gpus: [u32; 2],
    /// Ports that runs have.
    pub(super) used_ports: BTreeSet<u16>,
}

/// The taint `gpu` of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GpuTaint {
    None,
    PreferNot,
    NoSchedule,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    Up,
    Down,
    Draining,
}

/// What a task asks for and would rather have.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a line of a job file or is not"
)]
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) millicores: u32,
    pub(super) mib: u64,
    /// 0 where nothing is said of them.
    pub(super) disk_mib: u64,
    pub(super) disk_rate: u64,
    pub(super) pids: u32,
    /// Gpus, wherever they are, or of a name.
    pub(super) gpus: u32,
    pub(super) gpus_of: Option<usize>,
    /// A port that has to be this one, and how many of the machine's.
    pub(super) fixed_port: Option<u16>,
    pub(super) free_ports: u16,
    pub(super) in_datacenter_x: bool,
    pub(super) on_ssd: bool,
    /// Not in the first rack; one without a rack will do.
    pub(super) not_in_a: bool,
    pub(super) tolerates_gpu: bool,
    pub(super) distinct_hosts: bool,
    /// At most so many replicas in a rack, none outside of racks.
    pub(super) most_in_rack: Option<u32>,
    pub(super) towards_ssd: Option<i8>,
    pub(super) towards_rack_b: Option<i8>,
    pub(super) towards_large: Option<i8>,
    /// Over racks, with the targets of the first and the second.
    pub(super) spread: Option<(i8, Option<(u8, u8)>)>,
}

/// Cores in thousandths, memory and disk in bytes, what disks do in a second in mebibytes, processes.
pub(super) const AMOUNTS: usize = 5;

impl Wish {
    pub(super) fn amounts(&self) -> [u64; AMOUNTS] {
        [
            self.millicores.into(),
            self.mib * MIB,
            self.disk_mib * MIB,
            self.disk_rate,
            self.pids.into(),
        ]
    }
}

impl Machine {
    /// None of what it does not count.
    fn amounts(&self) -> [Option<u64>; AMOUNTS] {
        [
            Some(u64::from(self.cores) * 1000),
            Some(self.gib * 1024 * MIB),
            Some(self.disk_gib * 1024 * MIB),
            self.disk_rate,
            self.pids.map(u64::from),
        ]
    }
}

/// What gpus are called.
pub(super) const GPU_NAMES: [&str; 2] = ["a100", "t4"];

/// The first port that machines give out.
pub(super) const FIRST_PORT: u16 = 20_000;

/// A machine is large from so many cores on.
pub(super) const LARGE: u32 = 4;

/// What is known of a machine when a run is to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) machine: &'a Machine,
    /// Replicas of the task on it.
    pub(super) replicas: u32,
    /// One of those is to be replaced by this run.
    pub(super) own: bool,
    /// How often the slot failed on it lately.
    pub(super) failures: u8,
}

impl Place<'_> {
    fn others(&self) -> u32 {
        self.replicas - u32::from(self.own)
    }
}

/// What a machine is worth: the least is the best.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Worth {
    pub(super) failures: u8,
    pub(super) shunned: bool,
    pub(super) cost: f64,
    pub(super) points: i32,
}

/// For each machine what it is worth, or what is against it first.
pub(super) fn judge(
    strategy: Strategy,
    wish: &Wish,
    places: &[Place<'_>],
) -> Vec<Result<Worth, String>> {
    let up = places
        .iter()
        .filter(|p| p.machine.standing != Standing::Down);
    let machines = f64::from(u32::try_from(up.count()).unwrap());
    let against: Vec<Option<String>> = places.iter().map(|p| against(wish, p, places)).collect();
    let fitting = places.iter().zip(&against);
    let fitting = fitting.filter(|(_, against)| against.is_none());
    let fitting: Vec<Place<'_>> = fitting.map(|(place, _)| *place).collect();
    let judged = places.iter().zip(against).map(|(place, against)| {
        let machine = place.machine;
        if let Some(against) = against {
            return Err(against);
        }
        let points = affinity(wish, machine) + spread(wish, machine, places, &fitting);
        let points = points.clamp(-1200, 1200);
        Ok(Worth {
            failures: place.failures,
            shunned: machine.taint == GpuTaint::PreferNot && !wish.tolerates_gpu,
            cost: cost(strategy, wish, place, machines, f64::from(points) / 100.0),
            points,
        })
    });
    judged.collect()
}

/// The first thing against a machine.
fn against(wish: &Wish, place: &Place<'_>, places: &[Place<'_>]) -> Option<String> {
    let machine = place.machine;
    let in_rack = |rack| {
        let there = places.iter().filter(|p| p.machine.rack == rack);
        there.map(Place::others).sum::<u32>()
    };
    let too_many = wish
        .most_in_rack
        .filter(|most| machine.rack.is_none() || in_rack(machine.rack) >= *most);
    let (asked, all) = (wish.amounts(), machine.amounts());
    let idle: [u32; 2] = std::array::from_fn(|d| machine.gpus[d] - machine.used_gpus[d]);
    let of_name = |name: usize| wish.gpus_of == Some(name) && idle[name] < wish.gpus;
    let short =
        |d: usize| asked[d] > 0 && all[d].is_some_and(|all| machine.used[d] + asked[d] > all);
    let causes = [
        (machine.standing == Standing::Down, "down".to_owned()),
        (
            machine.standing == Standing::Draining,
            "draining".to_owned(),
        ),
        (
            wish.in_datacenter_x && machine.datacenter != Some("x"),
            "in another datacenter".to_owned(),
        ),
        (!machine.runs_processes, "no process driver".to_owned()),
        (
            wish.on_ssd && !machine.ssd,
            "constraint node.label.disk == ssd".to_owned(),
        ),
        (
            wish.not_in_a && machine.rack == Some("a"),
            "constraint node.label.rack != a".to_owned(),
        ),
        (
            machine.taint == GpuTaint::NoSchedule && !wish.tolerates_gpu,
            "taint gpu:no-schedule".to_owned(),
        ),
        (
            wish.distinct_hosts && place.others() > 0,
            "constraint distinct_hosts".to_owned(),
        ),
        (
            too_many.is_some(),
            format!(
                "constraint node.label.rack distinct_property{}",
                match wish.most_in_rack {
                    Some(most) if most > 1 => format!(" {most}"),
                    _ => String::new(),
                }
            ),
        ),
        (short(0), "not enough cpu".to_owned()),
        (short(1), "not enough memory".to_owned()),
        (short(2), "not enough disk".to_owned()),
        (short(3), "not enough disk rate".to_owned()),
        (short(4), "not enough pids".to_owned()),
        (of_name(0), format!("not enough {} gpus", GPU_NAMES[0])),
        (of_name(1), format!("not enough {} gpus", GPU_NAMES[1])),
        (idle[0] + idle[1] < wish.gpus, "not enough gpus".to_owned()),
    ];
    let mut causes = causes.into_iter().chain(ports_against(wish, machine));
    let first = causes.find(|(is_so, _)| *is_so);
    first.map(|(_, cause)| cause)
}

/// What of its ports is against a machine.
fn ports_against(wish: &Wish, machine: &Machine) -> [(bool, String); 2] {
    let fixed = wish.fixed_port;
    let is_held = fixed.is_some_and(|port| machine.used_ports.contains(&port));
    let free = FIRST_PORT..=machine.last_port;
    let free = free.filter(|port| !machine.used_ports.contains(port));
    let free = free.filter(|port| fixed != Some(*port)).count();
    let too_few = wish.free_ports > 0 && free < usize::from(wish.free_ports);
    let taken = format!("port {} taken", fixed.unwrap_or_default());
    [(is_held, taken), (too_few, "no free ports".to_owned())]
}

/// What speaks for a machine, in hundredths of a node.
fn affinity(wish: &Wish, machine: &Machine) -> i32 {
    let mut points = 0;
    for (weight, is_so) in [
        (wish.towards_ssd, machine.ssd),
        (wish.towards_rack_b, machine.rack == Some("b")),
        (wish.towards_large, machine.cores >= LARGE),
    ] {
        if is_so {
            points += i32::from(weight.unwrap_or(0));
        }
    }
    points
}

/// The weight for each replica that a rack would be above its share with one more.
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn spread(wish: &Wish, machine: &Machine, all: &[Place<'_>], fitting: &[Place<'_>]) -> i32 {
    let Some((weight, targets)) = wish.spread else {
        return 0;
    };
    let mut racks: BTreeMap<Option<&str>, f64> = BTreeMap::new();
    for place in all {
        *racks.entry(place.machine.rack).or_default() += f64::from(place.others());
    }
    let open = |rack| fitting.iter().any(|place| place.machine.rack == rack);
    let named = |rack: Option<&str>| match (targets, rack) {
        (Some((a, _)), Some("a")) => Some(f64::from(a)),
        (Some((_, b)), Some("b")) => Some(f64::from(b)),
        _ => None,
    };
    let share = |rack| match targets {
        None => 1.0,
        Some((a, b)) => named(rack).unwrap_or_else(|| {
            let unnamed = racks.keys().filter(|r| open(**r) && named(**r).is_none());
            let unnamed = unnamed.count().max(1);
            (100.0 - f64::from(a) - f64::from(b)) / f64::from(u32::try_from(unnamed).unwrap())
        }),
    };
    let due = racks
        .iter()
        .filter(|(rack, _)| open(**rack) && share(**rack) > 0.0);
    let due = due.map(|(rack, count)| (count + 1.0) / share(*rack));
    let level = due.fold(f64::INFINITY, f64::min);
    let level = if level.is_finite() { level } else { 0.0 };
    let above = racks[&machine.rack] + 1.0 - share(machine.rack) * level;
    (-f64::from(weight) * above).round() as i32
}

/// What a strategy says in its words; so much of a node is counted less in use, or more where nodes
/// are to be packed.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn cost(strategy: Strategy, wish: &Wish, place: &Place<'_>, machines: f64, favour: f64) -> f64 {
    let machine = place.machine;
    let gpus = (
        Some(u64::from(machine.gpus[0] + machine.gpus[1])),
        u64::from(machine.used_gpus[0] + machine.used_gpus[1]),
        u64::from(wish.gpus),
    );
    let amounts = machine.amounts().into_iter().zip(machine.used);
    let amounts = amounts.zip(wish.amounts());
    let amounts = amounts.map(|((all, used), asked)| (all, used, asked));
    // Only what is asked for and counted counts.
    let counted = amounts.chain([gpus]).filter_map(|(all, used, asked)| {
        let all = all.filter(|_| asked > 0)? as f64;
        Some((used as f64 / all, asked as f64 / all))
    });
    let (used, asked): (Vec<f64>, Vec<f64>) = counted.unzip();
    let count = used.len();
    let after: Vec<f64> = (0..count).map(|d| used[d] + asked[d]).collect();
    let mean = after.iter().sum::<f64>() / f64::from(u32::try_from(count).unwrap());
    let stranded = |used: &[f64]| {
        let fullest = used.iter().copied().fold(0.0, f64::max);
        used.iter().map(|used| fullest - used).sum::<f64>()
    };
    let replicas = f64::from(place.replicas);
    match strategy {
        Strategy::Epvm => {
            let n = machines.max(2.0);
            let busy = f64::from(machine.busy.min(100)) / 100.0;
            let marginal = (0..count).map(|d| {
                let before = if d == 0 { used[0].max(busy) } else { used[d] };
                n.powf(before + asked[d]) - n.powf(before)
            });
            let marginal: f64 = marginal.sum();
            marginal * (1.0 + replicas) / machines.max(16.0).powf(favour)
        }
        Strategy::Binpack => 1.0 - mean + replicas * 1e-9 - favour,
        Strategy::Spread => mean + replicas * 2.0 - favour,
        Strategy::Balanced => {
            stranded(&after) - stranded(&used) + 1e-3 * (1.0 - mean) + replicas * 0.1 - favour
        }
        Strategy::RoundRobin => -favour,
    }
}
