//! A factory whose modules misbehave.

use std::any::Any;
use std::sync::Arc;

use serde_json::Value;

use super::garbage;
use super::misbehave::{Misbehave, Place};
use super::misbehaviour::{Misbehaviour, Occasion};
use crate::callback::{Callback, visit_all};
use crate::failure::ModuleError;
use crate::json::JsonError;
use crate::module::ConfigError;
use crate::module_api::{BackgroundTask, ModuleHost, Registered, Schedule};
use crate::registration::{Concern, LocalFuture, Registration, Subscriber};
use crate::registry::{CreateError, Created, ModuleFactory, Registry};
use crate::resource::{WebRequest, WebResource, WebResponse};
use crate::visit_each_callback;

impl Registry {
    /// Adds the module that has the path `of` under another path, where it misbehaves; a path that was there is
    /// replaced. Only with the feature `testing`.
    ///
    /// # Panics
    /// No module has the path `of`: the test that asks for it is wrong.
    #[must_use]
    #[track_caller]
    pub fn misbehaving(self, path: impl Into<String>, of: &str, misbehaviour: Misbehaviour) -> Self {
        let Some(factory) = self.factory(of) else {
            panic!("no module has the path {of:?}, so none can misbehave");
        };
        self.with_factory(path, misbehaviour.wrap(factory))
    }
}

impl Misbehaviour {
    /// The same factory, whose modules misbehave. For tests that have no registry.
    #[must_use]
    pub fn wrap(self, factory: Arc<dyn ModuleFactory>) -> Arc<dyn ModuleFactory> {
        Arc::new(MisbehavingFactory {
            factory,
            misbehaviour: self,
        })
    }
}

struct MisbehavingFactory {
    factory: Arc<dyn ModuleFactory>,
    misbehaviour: Misbehaviour,
}

impl ModuleFactory for MisbehavingFactory {
    fn check(&self, config: Value) -> Result<(), ConfigError> {
        self.factory.check(config)
    }

    fn create(&self, config: Value, host: Arc<dyn ModuleHost>) -> Result<Created, CreateError> {
        let misbehaviour = &self.misbehaviour;
        if let Some(occasion) = misbehaviour.seen(Place::Constructor, |text| has_text(&config, text)) {
            misbehaviour
                .misbehave_blocking(occasion)
                .map_err(CreateError::Constructor)?;
        }
        let Created { instance, registered } = self.factory.create(config, Arc::clone(&host))?;
        if misbehaviour.is_in_background() {
            let task = background_task(misbehaviour.clone(), Arc::clone(&host));
            host.background("misbehaviour".to_owned(), Schedule::Now, task);
        }
        let shared = Arc::new(Instance {
            misbehaviour: misbehaviour.clone(),
            host,
            _instance: instance,
        });
        let registered = Registered {
            callbacks: registered
                .callbacks
                .into_iter()
                .map(|registration| misbehaving_registration(registration, &shared))
                .collect(),
            resources: registered
                .resources
                .into_iter()
                .map(|(path, inner)| {
                    let instance = Arc::clone(&shared);
                    let resource: Arc<dyn WebResource> = Arc::new(Misbehaving { inner, instance });
                    (path, resource)
                })
                .collect(),
        };
        Ok(Created {
            instance: shared,
            registered,
        })
    }
}

fn background_task(misbehaviour: Misbehaviour, host: Arc<dyn ModuleHost>) -> BackgroundTask {
    Box::new(move || {
        let (misbehaviour, host) = (misbehaviour.clone(), Arc::clone(&host));
        Box::pin(async move {
            match misbehaviour.seen(Place::Background, |_| false) {
                Some(occasion) => misbehaviour.misbehave(occasion, &*host).await,
                None => Ok(()),
            }
        })
    })
}

/// An instance that misbehaves. Everything that it registered holds it, as it would hold the module's own, so that the
/// module's is dropped at the same moment as without misbehaviour.
struct Instance {
    misbehaviour: Misbehaviour,
    host: Arc<dyn ModuleHost>,
    _instance: Arc<dyn Any + Send + Sync>,
}

impl Instance {
    /// Misbehaves if this call does; the occasion is for those who answer garbage.
    async fn call(&self, has_text: impl FnOnce(&str) -> bool) -> Result<Option<Occasion>, ModuleError> {
        let occasion = self.misbehaviour.seen(Place::Calls, has_text);
        if let Some(occasion) = occasion {
            self.misbehaviour.misbehave(occasion, &*self.host).await?;
        }
        Ok(occasion.filter(|occasion| occasion.misbehave == Misbehave::Garbage))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(occasion) = self.misbehaviour.seen(Place::Drop, |_| false) {
            // A second panic while the first one unwinds would abort the process.
            if occasion.misbehave == Misbehave::Panic && std::thread::panicking() {
                return;
            }
            let done = self.misbehaviour.misbehave_blocking(occasion);
            debug_assert!(done.is_ok(), "an error does not fit in a drop");
        }
    }
}

/// Something that answers, with the instance that it belongs to.
struct Misbehaving<T: ?Sized> {
    inner: Arc<T>,
    instance: Arc<Instance>,
}

impl<C: Callback> Subscriber<C> for Misbehaving<dyn Subscriber<C>> {
    fn call<'a>(&'a self, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        Box::pin(async move {
            let has_text = |text: &str| serde_json::to_value(args).is_ok_and(|args| has_text(&args, text));
            match self.instance.call(has_text).await? {
                Some(garbage) => garbage::answer::<C>(garbage.nth),
                None => self.inner.call(args).await,
            }
        })
    }

    fn concern(&self, args: &C) -> Result<Concern, JsonError> {
        self.inner.concern(args)
    }
}

impl WebResource for Misbehaving<dyn WebResource> {
    fn respond(&self, request: WebRequest) -> LocalFuture<'_, Result<WebResponse, ModuleError>> {
        Box::pin(async move {
            match self.instance.call(|text| query_has(&request, text)).await? {
                Some(garbage) => Err(garbage::error(garbage.nth).into()),
                None => self.inner.respond(request).await,
            }
        })
    }
}

/// A registration on its way to another subscriber: the callback's type is known only to a visitor.
struct Replacing<'a> {
    registration: Registration,
    instance: &'a Arc<Instance>,
}

impl Replacing<'_> {
    fn replace<C: Callback>(&mut self) {
        if let Some(inner) = self.registration.subscriber::<C>() {
            let instance = Arc::clone(self.instance);
            self.registration
                .replace_subscriber::<C>(Arc::new(Misbehaving { inner, instance }));
        }
    }
}

visit_each_callback!(Replacing<'_>, |self, C| self.replace::<C>());

fn misbehaving_registration(registration: Registration, instance: &Arc<Instance>) -> Registration {
    let mut replacing = Replacing { registration, instance };
    visit_all(&mut replacing);
    replacing.registration
}

/// Whether a text is a value anywhere in it.
fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Array(values) => values.iter().any(|value| has_text(value, text)),
        Value::Object(fields) => fields.values().any(|value| has_text(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn query_has(request: &WebRequest, text: &str) -> bool {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).any(|(_, value)| value == text)
}
