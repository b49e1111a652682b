//! Those who wait, and who of them is next: fair between callers, and by what a call is for. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ganglion_api::Combine;

/// Who asks. Calls of one caller wait for each other; those of another caller take turns with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Caller {
    /// Nobody in particular: a program that embeds Ganglion and does not say.
    #[default]
    Unnamed,
    /// One connection or part of a program, see [`Caller::link`].
    Link(u64),
    /// Who asks on the listener `admin`, by address.
    Address(IpAddr),
    /// Who asks a web resource, by address: no line is shared with the homeserver, though both may come through one proxy.
    Client(IpAddr),
}

impl Caller {
    /// A caller of its own, unlike all others in this process.
    #[must_use]
    pub fn link() -> Self {
        static LINKS: AtomicU64 = AtomicU64::new(0);
        Self::Link(LINKS.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a call is for. It says who gives way where there is not room for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallClass {
    /// Something waits to be allowed: a share of the permits is for these alone.
    Gating,
    /// Somebody waits for a value, or for a web page.
    Asking,
    /// Nobody waits for what a module says: these give way first.
    Notifying,
}

impl CallClass {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Gating, Self::Asking, Self::Notifying];

    /// The class of a callback, by its combine rule.
    #[must_use]
    pub const fn of(combine: Combine) -> Self {
        match combine {
            Combine::FirstDeny | Combine::Rewrite => Self::Gating,
            Combine::FirstAnswer | Combine::Merge | Combine::SingleOwner => Self::Asking,
            Combine::Notify => Self::Notifying,
        }
    }
}

/// The calls of one caller, by their order of arrival, and when it is its turn.
#[derive(Debug)]
struct Line<T> {
    turn: u64,
    waiting: BTreeMap<u64, T>,
}

/// Who of a line gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivesWay {
    /// Who has waited longest.
    Oldest,
    /// Who has just come.
    Newest,
}

/// How heavy a line is: how many there are; of two as long ones, that whose member gives way sooner.
type Weight = (usize, u64);

impl<T> Line<T> {
    fn weight(&self, gives_way: GivesWay) -> Option<Weight> {
        let rank = match gives_way {
            GivesWay::Oldest => u64::MAX - self.waiting.first_key_value()?.0,
            GivesWay::Newest => *self.waiting.last_key_value()?.0,
        };
        Some((self.waiting.len(), rank))
    }

    fn gives_way(&self, gives_way: GivesWay) -> Option<u64> {
        let (arrival, _) = match gives_way {
            GivesWay::Oldest => self.waiting.first_key_value()?,
            GivesWay::Newest => self.waiting.last_key_value()?,
        };
        Some(*arrival)
    }
}

/// Those of one class: callers take turns.
#[derive(Debug)]
struct Lane<T> {
    lines: HashMap<Caller, Line<T>>,
    turns: BTreeMap<u64, Caller>,
    last_turn: u64,
    /// The callers by the weight of their lines.
    weights: BTreeSet<(Weight, Caller)>,
    gives_way: GivesWay,
}

impl<T> Lane<T> {
    fn new(class: CallClass) -> Self {
        Self {
            lines: HashMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            weights: BTreeSet::new(),
            gives_way: match class {
                CallClass::Notifying => GivesWay::Oldest,
                CallClass::Gating | CallClass::Asking => GivesWay::Newest,
            },
        }
    }

    /// Changes the line of a caller; one that is empty then is gone.
    fn change<R>(&mut self, caller: Caller, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let line = self.lines.entry(caller).or_insert_with(|| {
            self.last_turn += 1;
            self.turns.insert(self.last_turn, caller);
            Line {
                turn: self.last_turn,
                waiting: BTreeMap::new(),
            }
        });
        if let Some(weight) = line.weight(self.gives_way) {
            self.weights.remove(&(weight, caller));
        }
        let changed = change(&mut line.waiting);
        match line.weight(self.gives_way) {
            Some(weight) => {
                self.weights.insert((weight, caller));
            }
            None => {
                self.turns.remove(&line.turn);
                self.lines.remove(&caller);
            }
        }
        changed
    }

    fn push(&mut self, caller: Caller, arrival: u64, item: T) {
        self.change(caller, |waiting| waiting.insert(arrival, item));
    }

    fn remove(&mut self, caller: Caller, arrival: u64) -> Option<T> {
        self.change(caller, |waiting| waiting.remove(&arrival))
    }

    fn pop(&mut self) -> Option<T> {
        let (_, caller) = self.turns.pop_first()?;
        self.last_turn += 1;
        let (turn, line) = (self.last_turn, self.lines.get_mut(&caller)?);
        line.turn = turn;
        self.turns.insert(turn, caller);
        let (_, item) = self.change(caller, BTreeMap::pop_first)?;
        Some(item)
    }

    /// Who gives way here, of the caller that has the most, and the weight of that caller's line.
    fn gives_way(&self) -> Option<(Weight, Caller, u64)> {
        let (weight, caller) = *self.weights.last()?;
        Some((weight, caller, self.lines.get(&caller)?.gives_way(self.gives_way)?))
    }
}

/// A place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    class: CallClass,
    caller: Caller,
    arrival: u64,
}

/// Those who wait. The classes take turns, and in each class the callers do; calls of one class and one caller keep
/// their order.
#[derive(Debug)]
pub struct FairQueue<T> {
    lanes: [Lane<T>; CallClass::ALL.len()],
    /// The class whose turn is next, if somebody of it waits.
    turn: usize,
    arrivals: u64,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lanes: CallClass::ALL.map(Lane::new),
            turn: 0,
            arrivals: 0,
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more waits.
    pub fn push(&mut self, class: CallClass, caller: Caller, item: T) -> Ticket {
        self.arrivals += 1;
        self.len += 1;
        self.lanes[class as usize].push(caller, self.arrivals, item);
        Ticket {
            class,
            caller,
            arrival: self.arrivals,
        }
    }

    /// The class whose turn it is: of all, or only of [`Gating`](CallClass::Gating).
    #[must_use]
    pub fn turn(&self, only_gating: bool) -> Option<CallClass> {
        let waits = |class: &CallClass| !self.lanes[*class as usize].lines.is_empty();
        if only_gating {
            return Some(CallClass::Gating).filter(waits);
        }
        let turns = CallClass::ALL.into_iter().cycle().skip(self.turn);
        turns.take(CallClass::ALL.len()).find(waits)
    }

    /// Takes out whose turn it is in this class. The next turn is that of another class, if one waits.
    pub fn pop(&mut self, class: CallClass) -> Option<T> {
        let item = self.lanes[class as usize].pop()?;
        self.turn = (class as usize + 1) % self.lanes.len();
        self.len -= 1;
        Some(item)
    }

    /// Takes out one who goes away; nothing if their turn has come already.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let item = self.lanes[ticket.class as usize].remove(ticket.caller, ticket.arrival)?;
        self.len -= 1;
        Some(item)
    }

    /// Takes out who gives way when there are too many: the oldest notification, of the caller that has the most of them;
    /// without one, the newest call of the caller that has the most waiting.
    pub fn give_way(&mut self) -> Option<(Ticket, T)> {
        let gives_way = |class: CallClass| Some((self.lanes[class as usize].gives_way()?, class));
        let others = || {
            [CallClass::Gating, CallClass::Asking]
                .into_iter()
                .filter_map(gives_way)
                .max()
        };
        let ((_, caller, arrival), class) = gives_way(CallClass::Notifying).or_else(others)?;
        let ticket = Ticket { class, caller, arrival };
        Some((ticket, self.remove(ticket)?))
    }

    /// Takes out everybody.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.len = 0;
        let lanes = std::mem::replace(&mut self.lanes, CallClass::ALL.map(Lane::new));
        lanes
            .into_iter()
            .flat_map(|lane| lane.lines.into_values())
            .flat_map(|line| line.waiting.into_values())
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;

    const A: Caller = Caller::Link(1_000_001);
    const B: Caller = Caller::Link(1_000_002);

    fn pop<T>(queue: &mut FairQueue<T>, only_gating: bool) -> Option<T> {
        let class = queue.turn(only_gating)?;
        queue.pop(class)
    }

    fn drained(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| pop(queue, false)).collect()
    }

    #[test]
    fn callers_take_turns_and_keep_their_own_order() {
        let mut queue = FairQueue::default();
        for item in ["a1", "a2", "a3", "a4"] {
            queue.push(CallClass::Gating, A, item);
        }
        for item in ["b1", "b2"] {
            queue.push(CallClass::Gating, B, item);
        }
        assert_eq!(drained(&mut queue), ["a1", "b1", "a2", "b2", "a3", "a4"]);
    }

    #[test]
    fn who_comes_one_at_a_time_does_not_overtake_who_waits() {
        let mut queue = FairQueue::default();
        for item in ["a1", "a2", "a3"] {
            queue.push(CallClass::Gating, A, item);
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            queue.push(CallClass::Gating, B, "b");
            order.extend(pop(&mut queue, false));
            order.extend(pop(&mut queue, false));
        }
        assert_eq!(order, ["a1", "b", "a2", "b", "a3", "b"]);
    }

    #[test]
    fn classes_take_turns_and_gating_calls_can_be_taken_alone() {
        let mut queue = FairQueue::default();
        queue.push(CallClass::Notifying, A, "n1");
        queue.push(CallClass::Notifying, A, "n2");
        queue.push(CallClass::Asking, A, "q");
        queue.push(CallClass::Gating, A, "g1");
        queue.push(CallClass::Gating, A, "g2");
        assert_eq!(pop(&mut queue, true), Some("g1"));
        assert_eq!(drained(&mut queue), ["q", "n1", "g2", "n2"]);
        assert_eq!(queue.turn(true), None);
    }

    #[test]
    fn the_oldest_notification_of_the_caller_with_the_most_gives_way_first() {
        let mut queue = FairQueue::default();
        queue.push(CallClass::Notifying, B, "b1");
        queue.push(CallClass::Notifying, A, "a1");
        queue.push(CallClass::Notifying, A, "a2");
        queue.push(CallClass::Gating, A, "g");
        let gone: Vec<_> = std::iter::from_fn(|| queue.give_way().map(|(_, item)| item)).collect();
        assert_eq!(gone, ["a1", "b1", "a2", "g"]);
    }

    #[test]
    fn without_notifications_the_newest_call_of_the_caller_with_the_most_gives_way() {
        let mut queue = FairQueue::default();
        for item in ["a1", "a2", "a3"] {
            queue.push(CallClass::Gating, A, item);
        }
        queue.push(CallClass::Asking, B, "b1");
        assert_eq!(queue.give_way().map(|(_, item)| item), Some("a3"));
        queue.push(CallClass::Gating, A, "a4");
        assert_eq!(queue.give_way().map(|(_, item)| item), Some("a4"));
        assert_eq!(drained(&mut queue), ["a1", "b1", "a2"]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Push(usize, u64),
        Pop(bool),
        GiveWay,
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize, 0..4_u64).prop_map(|(class, caller)| Step::Push(class, caller)),
            2 => any::<bool>().prop_map(Step::Pop),
            1 => Just(Step::GiveWay),
            1 => (0..20_usize).prop_map(Step::Remove),
        ]
    }

    /// One who waits, as a model of the queue has it.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Waits {
        class: usize,
        caller: u64,
        arrival: u64,
    }

    /// Whose turn it is in a class: the caller that was served or came longest ago; of its calls the first.
    fn model_pop(waiting: &[Waits], served: &[(usize, u64)], class: usize) -> Option<Waits> {
        let callers: Vec<u64> = waiting
            .iter()
            .filter(|waits| waits.class == class)
            .map(|waits| waits.caller)
            .collect();
        let since = |caller: u64| {
            let served = served.iter().rposition(|of| *of == (class, caller));
            served.map(|index| index as u64)
        };
        // `served` holds arrivals into an empty line too, so every caller that waits is in it.
        let caller = callers.into_iter().min_by_key(|caller| since(*caller))?;
        waiting
            .iter()
            .copied()
            .filter(|waits| (waits.class, waits.caller) == (class, caller))
            .min_by_key(|waits| waits.arrival)
    }

    fn model_give_way(waiting: &[Waits]) -> Option<Waits> {
        let count = |of: &Waits| {
            let line = waiting
                .iter()
                .filter(|waits| (waits.class, waits.caller) == (of.class, of.caller));
            line.count()
        };
        let notifying = waiting.iter().filter(|waits| waits.class == 2);
        let oldest = notifying.max_by_key(|waits| (count(waits), Reverse(waits.arrival)));
        let newest = || waiting.iter().max_by_key(|waits| (count(waits), waits.arrival));
        oldest.or_else(newest).copied()
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_does(steps in proptest::collection::vec(step(), 0..200)) {
            let mut queue = FairQueue::default();
            let (mut waiting, mut served, mut tickets) = (Vec::<Waits>::new(), Vec::new(), Vec::new());
            let (mut arrival, mut turn) = (0, 0);
            for step in steps {
                match step {
                    Step::Push(class, caller) => {
                        arrival += 1;
                        let waits = Waits { class, caller, arrival };
                        if !waiting.iter().any(|other| (other.class, other.caller) == (class, caller)) {
                            served.push((class, caller));
                        }
                        waiting.push(waits);
                        tickets.push((queue.push(CallClass::ALL[class], Caller::Link(caller), waits), waits));
                    }
                    Step::Pop(only_gating) => {
                        let classes = if only_gating { vec![0] } else { (turn..turn + 3).map(|class| class % 3).collect() };
                        let expected = classes.into_iter().find_map(|class| model_pop(&waiting, &served, class));
                        prop_assert_eq!(pop(&mut queue, only_gating), expected);
                        if let Some(popped) = expected {
                            waiting.retain(|waits| *waits != popped);
                            served.push((popped.class, popped.caller));
                            turn = (popped.class + 1) % 3;
                        }
                    }
                    Step::GiveWay => {
                        let expected = model_give_way(&waiting);
                        prop_assert_eq!(queue.give_way().map(|(_, item)| item), expected);
                        waiting.retain(|waits| Some(*waits) != expected);
                    }
                    Step::Remove(index) => {
                        if let Some((ticket, waits)) = tickets.get(index).copied() {
                            let expected = waiting.contains(&waits).then_some(waits);
                            prop_assert_eq!(queue.remove(ticket), expected);
                            waiting.retain(|other| *other != waits);
                        }
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
            }
            prop_assert_eq!(queue.drain().count(), waiting.len());
            prop_assert!(queue.is_empty());
        }
    }
}
