use std::task::Waker;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::stock::RESERVED;

impl Admission {
    fn in_flight(&self) -> usize {
        self.load().0
    }

    fn waiting(&self) -> usize {
        self.load().1
    }
}

/// An admission with one thread.
struct One(Admission, Arc<Ledger>, CancellationToken);

impl One {
    fn new(max_in_flight: usize, mailbox: usize) -> Self {
        let admission = Admission::new(&Arc::new(Stock::new(max_in_flight, None)), mailbox);
        let ledger = admission.ledger();
        Self(admission, ledger, CancellationToken::new())
    }

    async fn admit(&self) -> Result<Permit, Refusal> {
        self.admit_for(CallClass::Gating, Caller::Unnamed).await
    }

    async fn admit_for(&self, class: CallClass, caller: Caller) -> Result<Permit, Refusal> {
        let soon = Instant::now() + Duration::from_secs(1);
        self.0.admit(&self.1, class, caller, soon, &self.2, drop).await
    }

    async fn admit_on(&self, ledger: &Arc<Ledger>) -> Result<Permit, Refusal> {
        let soon = Instant::now() + Duration::from_secs(1);
        self.0
            .admit(ledger, CallClass::Gating, Caller::Unnamed, soon, &self.2, drop)
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_overloaded_at_once_and_a_late_permit_after_the_budget() {
    let admission = One::new(1, 1);
    let permit = admission.admit().await.unwrap();
    let (waits, refused) = tokio::join!(admission.admit(), async {
        let begun = Instant::now();
        let refused = admission.admit().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        refused
    });
    assert_eq!(refused.unwrap_err(), Refusal::Full);
    assert_eq!(waits.unwrap_err(), Refusal::Late);
    drop(permit);
    assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn closing_sends_away_those_who_wait() {
    let admission = One::new(1, 10);
    let _permit = admission.admit().await.unwrap();
    let (waits, ()) = tokio::join!(admission.admit(), async { admission.0.close() });
    assert_eq!(waits.unwrap_err(), Refusal::NotRunning);
    assert_eq!(admission.admit().await.unwrap_err(), Refusal::NotRunning);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_its_place() {
    let admission = One::new(1, 1);
    let permit = admission.admit().await.unwrap();
    let mut waits = Box::pin(admission.admit());
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert_eq!(admission.0.waiting(), 1);
    drop(waits);
    assert_eq!(admission.0.waiting(), 0);
    drop(permit);
    assert!(admission.admit().await.is_ok());
}
#[tokio::test(start_paused = true)]
async fn retiring_sends_away_those_who_wait() {
    let admission = One::new(1, 10);
    let _permit = admission.admit().await.unwrap();
    let (waits, ()) = tokio::join!(admission.admit(), async { admission.2.cancel() });
    assert_eq!(waits.unwrap_err(), Refusal::NotRunning);
}

#[tokio::test(start_paused = true)]
async fn permits_on_a_thread_that_is_given_up_come_back_once() {
    let admission = One::new(3, 0);
    let elsewhere = admission.0.ledger();
    let kept = admission.admit_on(&elsewhere).await.unwrap();
    let ended = admission.admit().await.unwrap();
    let stuck = admission.admit().await.unwrap();
    drop(ended);
    admission.1.reclaim();
    admission.1.reclaim();
    assert_eq!(admission.0.in_flight(), 1);
    // One more is not sent there, and the stuck call ends after all: neither changes the count.
    assert_eq!(admission.admit().await.unwrap_err(), Refusal::NotRunning);
    assert_eq!(admission.0.in_flight(), 1);
    drop(stuck);
    assert_eq!(admission.0.in_flight(), 1);
    drop(kept);
    assert_eq!(admission.0.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_on_a_thread_that_is_given_up_is_given_no_permit() {
    let admission = One::new(1, 1);
    let permit = admission.admit().await.unwrap();
    // Waits on a thread that never polls it again.
    let place = admission.0.0.enqueue(CallClass::Gating, Caller::Unnamed).unwrap();
    assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_pending());
    admission.1.reclaim();
    assert_eq!(admission.0.in_flight(), 1);
    place.reclaim();
    assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
    assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_ready());
    drop(permit);
    let elsewhere = admission.0.ledger();
    assert!(admission.admit_on(&elsewhere).await.is_ok());
}

/// Those who wait, one by one in this order; each says its name when it has its permit, and keeps it until the end.
async fn served(admission: &One, waiting: &[(&'static str, CallClass, Caller)], permits: Vec<Permit>) -> Vec<String> {
    let order = std::cell::RefCell::new(Vec::new());
    let all = waiting.iter().map(|(name, class, caller)| {
        let order = &order;
        async move {
            let admitted = admission.admit_for(*class, *caller).await;
            let said = match &admitted {
                Ok(_) => (*name).to_owned(),
                Err(refusal) => format!("{name} {refusal:?}"),
            };
            order.borrow_mut().push(said);
        }
    });
    let all = futures_util::future::join_all(all);
    let (_, ()) = tokio::join!(all, async { drop(permits) });
    order.into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_permits_is_for_gating_calls_alone() {
    let admission = One::new(8, 0);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(
            admission
                .admit_for(CallClass::Notifying, Caller::Unnamed)
                .await
                .unwrap(),
        );
        held.push(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.unwrap());
    }
    for (class, refusal) in [
        (CallClass::Notifying, Refusal::Shed),
        (CallClass::Asking, Refusal::Full),
    ] {
        let refused = admission.admit_for(class, Caller::Unnamed).await;
        assert_eq!(refused.unwrap_err(), refusal);
    }
    for _ in 0..2 {
        held.push(admission.admit().await.unwrap());
    }
    assert_eq!(admission.admit().await.unwrap_err(), Refusal::Full);
    // What a gating call gives back is not for others, who have their share.
    drop(held.pop());
    assert!(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.is_err());
    drop(held.remove(0));
    assert!(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn notifications_are_shed_first_and_the_oldest_of_them() {
    let admission = One::new(1, 3);
    let permit = admission.admit().await.unwrap();
    let one = Caller::Unnamed;
    let waiting = [
        ("n1", CallClass::Notifying, one),
        ("g1", CallClass::Gating, one),
        ("n2", CallClass::Notifying, one),
        ("g2", CallClass::Gating, one),
        ("n3", CallClass::Notifying, one),
        ("g3", CallClass::Gating, one),
        ("g4", CallClass::Gating, one),
    ];
    let served = served(&admission, &waiting, vec![permit]).await;
    let expected = ["g4 Full", "n1 Shed", "n2 Shed", "n3 Shed", "g1", "g2", "g3"];
    let mut sorted = served.clone();
    sorted.sort_unstable();
    let mut expected_sorted = expected;
    expected_sorted.sort_unstable();
    assert_eq!(sorted, expected_sorted);
    assert_eq!(
        served.iter().filter(|said| !said.contains(' ')).collect::<Vec<_>>(),
        ["g1", "g2", "g3"]
    );
    assert_eq!(admission.0.shed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flooding_caller_waits_behind_itself_and_gives_way_to_others() {
    let admission = One::new(1, 4);
    let permit = admission.admit().await.unwrap();
    let (flood, other) = (Caller::link(), Caller::link());
    let mut waiting = vec![("flood", CallClass::Gating, flood); 6];
    waiting.extend([("other", CallClass::Gating, other); 2]);
    let served = served(&admission, &waiting, vec![permit]).await;
    let (refused, served): (Vec<_>, Vec<_>) = served.into_iter().partition(|said| said.contains(' '));
    assert_eq!(served, ["flood", "other", "flood", "other"]);
    assert_eq!(refused, ["flood Full", "flood Full", "flood Shed", "flood Shed"]);
    assert_eq!(
        (admission.0.shed(), admission.0.waiting(), admission.0.in_flight()),
        (2, 0, 0)
    );
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Come(usize, u64),
    Leave(usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..CallClass::ALL.len(), 0..3_u64).prop_map(|(class, caller)| Step::Come(class, caller)),
        1 => (0..8_usize).prop_map(Step::Leave),
        3 => (0..8_usize).prop_map(Step::End),
    ]
}

/// Those who wait and run, as the admission gives it.
struct Crowd {
    admission: Admission,
    waiting: Vec<(CallClass, Place)>,
    running: Vec<(CallClass, Slot)>,
    refused: usize,
}

impl Crowd {
    fn new(max_in_flight: usize, mailbox: usize) -> Self {
        Self {
            admission: Admission::new(&Arc::new(Stock::new(max_in_flight, None)), mailbox),
            waiting: Vec::new(),
            running: Vec::new(),
            refused: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Come(class, caller) => {
                let class = CallClass::ALL[class];
                let place = self.admission.0.enqueue(class, Caller::Link(caller)).unwrap();
                self.waiting.push((class, place));
            }
            Step::Leave(index) if index < self.waiting.len() => self.waiting.remove(index).1.reclaim(),
            Step::End(index) if index < self.running.len() => drop(self.running.remove(index)),
            _ => {}
        }
        let mut cx = Context::from_waker(Waker::noop());
        for (class, place) in std::mem::take(&mut self.waiting) {
            match place.poll(&mut cx) {
                Poll::Ready(Ok(slot)) => self.running.push((class, slot)),
                Poll::Ready(Err(_refused)) => self.refused += 1,
                Poll::Pending => self.waiting.push((class, place)),
            }
        }
    }
}

#[test]
fn gating_calls_that_have_all_permits_leave_turns_to_others() {
    let mut crowd = Crowd::new(8, 100);
    let come = |crowd: &mut Crowd, class: CallClass, count| {
        (0..count).for_each(|_| crowd.take(Step::Come(class as usize, 0)));
    };
    come(&mut crowd, CallClass::Gating, 8 + 3);
    come(&mut crowd, CallClass::Asking, 2);
    come(&mut crowd, CallClass::Notifying, 2);
    let next = |_| {
        crowd.take(Step::End(0));
        crowd.running.last().expect("somebody runs").0
    };
    let (gating, asking, notifying) = (CallClass::Gating, CallClass::Asking, CallClass::Notifying);
    let order: Vec<_> = (0..7).map(next).collect();
    assert_eq!(order, [asking, notifying, gating, asking, notifying, gating, gating]);
}

proptest! {
    /// Whoever comes, leaves and ends, in whatever order: nobody waits while there is a permit for them, and there are
    /// never too many.
    #[test]
    fn nobody_waits_for_a_permit_that_is_free(
        max_in_flight in 1..10_usize,
        mailbox in 0..5_usize,
        steps in proptest::collection::vec(step(), 0..100),
    ) {
        let mut crowd = Crowd::new(max_in_flight, mailbox);
        let came = steps.iter().filter(|step| matches!(step, Step::Come(..))).count();
        let (mut left, mut ended) = (0, 0);
        for step in steps {
            left += usize::from(matches!(step, Step::Leave(index) if index < crowd.waiting.len()));
            ended += usize::from(matches!(step, Step::End(index) if index < crowd.running.len()));
            crowd.take(step);
            let free = max_in_flight - crowd.running.len();
            prop_assert_eq!(crowd.admission.in_flight(), crowd.running.len());
            prop_assert_eq!(crowd.admission.waiting(), crowd.waiting.len());
            prop_assert!(crowd.waiting.len() <= mailbox);
            let others = crowd.running.iter().filter(|(class, _)| *class != CallClass::Gating).count();
            let share = max_in_flight - max_in_flight / RESERVED;
            prop_assert!(others <= share);
            for (class, _) in &crowd.waiting {
                let has_share = *class == CallClass::Gating || others < share;
                prop_assert!(free == 0 || !has_share, "{:?} waits beside {} free permits", class, free);
            }
        }
        prop_assert_eq!(came, crowd.waiting.len() + crowd.running.len() + crowd.refused + left + ended);
    }
}
