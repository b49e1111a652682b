//! Modules of the config that go bad when the counting begins.

use std::sync::Arc;
use std::time::Duration;

use ganglion_api::testing::{CalmOnDrop, Misbehave, Misbehaviour};

use crate::config::{Config, near};

/// One module that is to misbehave, as the command line has it: `ID=KIND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misbehaves {
    /// The module's id.
    pub(crate) module: String,
    /// How.
    pub(crate) how: Misbehave,
    /// As it was written.
    pub(crate) text: String,
}

impl Misbehaves {
    /// Reads `ID=KIND`, or `ID=slow:DURATION`.
    ///
    /// # Errors
    /// It is no such thing.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // An id may be a path, which may have any character in it.
        let (module, kind) = text
            .rsplit_once('=')
            .filter(|(module, _)| !module.is_empty())
            .ok_or("write ID=KIND, such as demo.DemoModule=hang")?;
        Ok(Self {
            module: module.to_owned(),
            how: read(kind)?,
            text: text.to_owned(),
        })
    }
}

fn read(kind: &str) -> Result<Misbehave, String> {
    if let Some(text) = kind.strip_prefix("slow:") {
        let duration = humantime::parse_duration(text)
            .ok()
            .filter(|duration| *duration <= MOST_SLOW);
        return duration
            .map(Misbehave::Slow)
            .ok_or_else(|| "slow: write a duration of at most 1h such as slow:20ms".into());
    }
    Misbehave::from_word(kind).ok_or_else(|| {
        let words = Misbehave::ALL.map(Misbehave::as_str);
        format!("expected {}{}", words.join(", "), near(kind, words))
    })
}

const MOST_SLOW: Duration = Duration::from_secs(3600);

/// The modules that misbehave, calm until they are told otherwise, and calm again when this is dropped.
pub(crate) struct Misbehaving {
    modules: Vec<(Misbehaviour, CalmOnDrop)>,
}

impl Misbehaving {
    /// Wraps these modules of the config: id, place, tier and settings stay as they are, and so does what they
    /// subscribe to.
    ///
    /// # Errors
    /// No enabled module has the id.
    pub(crate) fn wrap(config: &mut Config, misbehave: &[Misbehaves]) -> Result<Self, String> {
        let mut modules = Vec::new();
        for Misbehaves { module: id, how, .. } in misbehave {
            let ids: Vec<String> = config.modules.iter().map(|module| module.id.clone()).collect();
            let Some(module) = config.modules.iter_mut().find(|module| module.id == *id) else {
                let near = near(id, ids.iter().map(String::as_str));
                return Err(format!("no module has the id {id:?}{near}"));
            };
            let Some(factory) = module.factory.take().filter(|_| module.enabled) else {
                return Err(format!("module {id} is disabled, nobody asks it"));
            };
            let misbehaviour = Misbehaviour::new(*how);
            misbehaviour.calm();
            module.factory = Some(misbehaviour.clone().wrap(Arc::clone(&factory)));
            let calm = misbehaviour.calm_on_drop();
            modules.push((misbehaviour, calm));
        }
        Ok(Self { modules })
    }

    /// From now on they misbehave.
    pub(crate) fn begin(&self) {
        for (misbehaviour, _) in &self.modules {
            misbehaviour.resume();
        }
    }

    /// It is over: threads that block or spin go on.
    pub(crate) fn end(&self) {
        for (misbehaviour, _) in &self.modules {
            misbehaviour.calm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_equals_sign_parts_the_id_from_the_kind() {
        let read = Misbehaves::parse("a=b.C=slow:20ms").unwrap();
        assert_eq!(read.module, "a=b.C");
        assert_eq!(read.how, Misbehave::Slow(Duration::from_millis(20)));
        for misbehave in Misbehave::ALL {
            assert_eq!(Misbehaves::parse(&format!("x={misbehave}")).unwrap().how, misbehave);
        }
    }

    #[test]
    fn what_is_no_misbehaviour_is_refused_with_those_that_are() {
        assert_eq!(
            Misbehaves::parse("x").unwrap_err(),
            "write ID=KIND, such as demo.DemoModule=hang"
        );
        assert_eq!(
            Misbehaves::parse("=hang").unwrap_err(),
            "write ID=KIND, such as demo.DemoModule=hang"
        );
        let error = Misbehaves::parse("x=hangs").unwrap_err();
        assert!(
            error.starts_with("expected panic, error, hang, ") && error.ends_with(", did you mean hang?"),
            "{error}"
        );
        assert!(Misbehaves::parse("x=slow:1y").is_err() && Misbehaves::parse("x=slow:").is_err());
    }
}
