//! A neighbour that misbehaves: every second call of it panics, and what it decides is asked all the same.
//!
//! `cargo run --example misbehaving`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use ganglion::api::testing::{Misbehave, Misbehaviour};
use ganglion::api::{RoomId, UserId, UserMayPublishRoom};
use ganglion::{Config, Ganglion, registry};

const CONFIG: &str = "
server_name: example.com
modules:
  - module: test.Panics
    id: neighbour
    config: { answers: { user_may_publish_room: { verdict: pass } } }
  - module: ganglion.modules.Canned
    id: healthy
    config: { answers: { user_may_publish_room: { verdict: deny, errcode: M_LIMIT_EXCEEDED } } }
# What a failure counts as: the next module is asked.
on_failure: [{ then: pass }]
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let misbehaviour = Misbehaviour::new(Misbehave::Panic).every(2);
    let registry = registry().misbehaving("test.Panics", "ganglion.modules.Canned", misbehaviour.clone());
    let config = Config::from_yaml(CONFIG, "misbehaving.yaml", &registry)?;
    let ganglion = Ganglion::start(&config).await?;

    for number in 1..=6 {
        if number == 5 {
            misbehaviour.calm();
            println!("from here on it is calm");
        }
        let (user, room) = (UserId::parse("@bob:example.com")?, RoomId::parse("!room:example.com")?);
        let decision = ganglion.ask(UserMayPublishRoom::new(user, room)).await;
        println!("question {number}:");
        for step in &decision.steps {
            println!("  {step:?}");
        }
    }
    println!(
        "{} of {} calls misbehaved",
        misbehaviour.misbehaved(),
        misbehaviour.calls()
    );
    ganglion.shutdown();
    Ok(())
}
