//! The addresses of hosts, by the system's own lookup.
//!
//! That lookup holds a thread for as long as name servers are silent, whoever has given up on it. So each host has one lookup
//! at a time, which all who ask meanwhile share, on a thread of its own: there are never more than hosts, and none of them is
//! missing to files and databases, which have the blocking threads.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use actix_tls::connect::Resolve;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;

/// The addresses of a host without a port, or why there are none.
type Found = Result<Vec<SocketAddr>, String>;

/// Finds the addresses of a host; takes as long as it takes.
type LookUp = dyn Fn(&str) -> Found + Send + Sync;

/// The lookups that are under way, by host. Clones share them.
#[derive(Clone)]
pub(super) struct Names {
    /// What each host's last lookup says. It is under way for as long as its other end is there.
    last: Arc<Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>>,
    look_up: Arc<LookUp>,
}

impl Names {
    /// Names that the system looks up.
    pub(super) fn of_system() -> Self {
        Self::new(|host| {
            let found = (host, 0).to_socket_addrs();
            found.map(Iterator::collect).map_err(|error| error.to_string())
        })
    }

    fn new(look_up: impl Fn(&str) -> Found + Send + Sync + 'static) -> Self {
        Self {
            last: Arc::default(),
            look_up: Arc::new(look_up),
        }
    }

    /// Whether somebody looks this host up just now.
    pub(super) fn is_under_way(&self, host: &str) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(host).is_some_and(is_open)
    }

    /// The lookup of a host that is under way, or a new one.
    fn join(&self, host: &str) -> std::io::Result<watch::Receiver<Option<Found>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = last.get(host).filter(|found| is_open(found)) {
            return Ok(found.clone());
        }
        let (tells, found) = watch::channel(None);
        let (look_up, name) = (Arc::clone(&self.look_up), host.to_owned());
        let thread = std::thread::Builder::new().name("name lookup".into());
        thread.spawn(move || tells.send_replace(Some(look_up(&name))))?;
        last.insert(host.to_owned(), found.clone());
        Ok(found)
    }

    async fn find(&self, host: &str) -> Found {
        let mut found = self.join(host).map_err(|error| error.to_string())?;
        let found = found.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err("the lookup broke off".into()))
    }
}

fn is_open(found: &watch::Receiver<Option<Found>>) -> bool {
    found.has_changed().is_ok()
}

impl Resolve for Names {
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LocalBoxFuture<'a, Result<Vec<SocketAddr>, Box<dyn Error>>> {
        Box::pin(async move {
            // As a URL has it.
            let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            if let Some(address) = literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) {
                return Ok(vec![(address, port).into()]);
            }
            let mut found = self.find(host).await?;
            for address in &mut found {
                address.set_port(port);
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_name_that_hangs_holds_one_thread_however_many_ask_and_no_other_name() {
        let begun = Arc::new(AtomicUsize::new(0));
        let (answer, answers) = mpsc::channel::<Found>();
        let answers = Mutex::new(answers);
        let counts = Arc::clone(&begun);
        let names = Names::new(move |host| match host {
            "slow.example" => {
                counts.fetch_add(1, Ordering::SeqCst);
                answers.lock().unwrap().recv().unwrap()
            }
            _ => Ok(vec![([192, 0, 2, 1], 0).into()]),
        });
        // Some give up, and it goes on.
        for _ in 0..100 {
            let given_up = timeout(Duration::ZERO, names.lookup("slow.example", 80)).await;
            assert!(given_up.is_err());
        }
        assert!(names.is_under_way("slow.example"));
        let other = names.lookup("fast.example", 443).await.unwrap();
        assert_eq!(other, [([192, 0, 2, 1], 443).into()]);

        let mut waiting = join_all((0..100).map(|_| names.lookup("slow.example", 80)));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        answer.send(Ok(vec![([192, 0, 2, 2], 0).into()])).unwrap();
        for found in waiting.await {
            assert_eq!(found.unwrap(), [([192, 0, 2, 2], 80).into()]);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);

        // Nothing is kept: what it finds may be another address the next time, and failures end.
        answer.send(Err("no such name".into())).unwrap();
        while names.is_under_way("slow.example") {
            tokio::task::yield_now().await;
        }
        let error = names.lookup("slow.example", 80).await.unwrap_err();
        assert_eq!(error.to_string(), "no such name");
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_lookup_that_panics_is_a_failure_and_the_next_one_begins_anew() {
        let begun = AtomicUsize::new(0);
        let names = Names::new(move |_| match begun.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("on purpose"),
            _ => Ok(Vec::new()),
        });
        let error = names.lookup("odd.example", 80).await.unwrap_err();
        assert_eq!(error.to_string(), "the lookup broke off");
        assert_eq!(names.lookup("odd.example", 80).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_address_of_ipv6_is_not_looked_up() {
        let names = Names::new(|_| Err("looked up".into()));
        let found = names.lookup("[::1]", 80).await.unwrap();
        assert_eq!(found, [(Ipv6Addr::LOCALHOST, 80).into()]);
        assert_eq!(names.lookup("[::1", 80).await.unwrap_err().to_string(), "looked up");
    }
}
