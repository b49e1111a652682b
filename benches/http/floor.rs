//! The least that an application of actix-web does to answer a callback.

use std::sync::Arc;

use actix_web::{App, HttpResponse, HttpServer, web};
use ganglion::api::{CheckEventForSpam, FromJson as _, JsonPath};
use ganglion_benches::host::Threads;
use ganglion_benches::work::{MODULES, is_spam};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::client::CALLBACKS;
use crate::server::Served;

/// How many questions may wait for the other thread; as many as there are connections, and more.
const WAITING: usize = 1024;

struct Floor {
    ask: mpsc::Sender<(CheckEventForSpam, oneshot::Sender<bool>)>,
    /// What it answers with: a decision of ours, written anew each time.
    decision: Arc<Value>,
}

/// Starts it. `decision` is one of ours, as JSON.
pub(crate) fn start(decision: &Value) -> Served {
    let decision = Arc::new(decision.clone());
    Served::start(async move || {
        let threads = Threads::start(1);
        let (ask, mut asked) = mpsc::channel::<(CheckEventForSpam, oneshot::Sender<bool>)>(WAITING);
        threads.arbiter(0).spawn(async move {
            while let Some((args, answer)) = asked.recv().await {
                let _ = answer.send((0..MODULES).any(|_| is_spam(&args)));
            }
        });
        let app = move || {
            let floor = Floor {
                ask: ask.clone(),
                decision: Arc::clone(&decision),
            };
            App::new()
                .app_data(web::Data::new(floor))
                .route(CALLBACKS, web::post().to(answer))
        };
        // As many threads as ours has.
        let server = HttpServer::new(app).disable_signals().bind(("127.0.0.1", 0));
        let server = server.expect("a free port");
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());
        (address, threads)
    })
}

async fn answer(body: web::Bytes, floor: web::Data<Floor>) -> HttpResponse {
    let args = serde_json::from_slice(&body).ok();
    let Some(args) = args.and_then(|args| CheckEventForSpam::from_json(args, &JsonPath::Root).ok()) else {
        return HttpResponse::BadRequest().finish();
    };
    let (answer, answered) = oneshot::channel();
    if floor.ask.send((args, answer)).await.is_err() {
        return HttpResponse::ServiceUnavailable().finish();
    }
    match answered.await {
        Ok(false) => HttpResponse::Ok().json(&*floor.decision),
        _ => HttpResponse::Forbidden().finish(),
    }
}
