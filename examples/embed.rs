//! Ganglion inside of a homeserver: a plain multi-thread runtime that asks through the handle.
//!
//! `cargo run --example embed`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use ganglion::api::{CheckRegistrationForSpam, JsonObject, RegistrationVerdict, UserId, UserMayCreateRoom, Verdict};
use ganglion::dispatcher::Outcome;
use ganglion::{Config, Ganglion, registry};

const CONFIG: &str = "
server_name: example.com
modules:
  - module: demo.DemoModule
  - module: ganglion.modules.Canned
    config: { answers: { check_registration_for_spam: { verdict: shadow_ban } } }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_yaml(CONFIG, "embedded.yaml", &registry())?;
    let ganglion = Ganglion::start(&config).await?;

    // The handle is cheap to clone and works from every task.
    let asks = ["@evilguy:example.com", "@bob:example.com"].map(|user| {
        let ganglion = ganglion.clone();
        tokio::spawn(async move {
            let user = UserId::parse(user)?;
            let decision = ganglion
                .ask(UserMayCreateRoom::new(user.clone(), JsonObject::new()))
                .await;
            Ok::<_, ganglion::api::ModuleError>((user, decision))
        })
    });
    for ask in asks {
        let (user, decision) = ask.await?.map_err(|error| error.to_string())?;
        match decision.outcome {
            Outcome::Decided(Verdict::Pass) => println!("{user} may create a room"),
            Outcome::Decided(Verdict::Deny(denial)) => println!("{user} may not: {}", denial.errcode),
            Outcome::Error(error) => println!("nobody knows: {error}"),
        }
    }

    let registration = CheckRegistrationForSpam::new(None, Some("newbie".to_owned()), [], None);
    let decision = ganglion.ask(registration).await;
    if decision.outcome == Outcome::Decided(RegistrationVerdict::ShadowBan) {
        println!(
            "newbie is shadow-banned by {}",
            decision.decided_by.as_deref().unwrap_or("nobody")
        );
    }
    ganglion.shutdown();
    Ok(())
}
