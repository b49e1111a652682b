//! Control over the homeserver's background updates. Source: Synapse's `BackgroundUpdater`.

use super::category;
use crate::continuation::UpdateContinuation;
use crate::json::json_object;

category! {
    /// Functions of a module that control background updates; the first module that registers owns all three.
    BackgroundUpdateController, BackgroundUpdateControllerCallbacks, register_background_update_controller_callbacks;

    /// An iteration of a background update is about to run: how long may it take? The module may wait first.
    OnUpdate, on_update, "1.49", Error, SingleOwner<UpdateWindow>, later update {
        /// The update.
        update_name: String,
        /// The database.
        database_name: String,
        /// Whether it runs only once.
        one_shot: bool,
    }

    /// The number of items in an update's first iteration. The homeserver takes 100 without an owner.
    DefaultBatchSize, default_batch_size, "1.49", Error, SingleOwner<i64> {
        /// The update.
        update_name: String,
        /// The database.
        database_name: String,
    }

    /// The least number of items in later iterations. The homeserver takes 1 without an owner.
    MinBatchSize, min_batch_size, "1.49", Error, SingleOwner<i64> {
        /// The update.
        update_name: String,
        /// The database.
        database_name: String,
    }
}

json_object! {
    /// The answer of `on_update`.
    #[derive(Eq)]
    UpdateWindow {
        /// How long the iteration may take, in milliseconds.
        duration_ms: i64,
        /// What to run when the iteration is over.
        exit_token [optional]: Option<UpdateContinuation>,
    }
}

impl UpdateWindow {
    /// Runs a function when the iteration is over, which is given whether that failed. Source: the exit of the context
    /// manager that Synapse's `on_update` returns.
    #[must_use]
    pub fn on_exit<F>(mut self, function: F) -> Self
    where
        F: AsyncFnOnce(bool) -> Result<(), crate::ModuleError> + Send + 'static,
    {
        self.exit_token = Some(UpdateContinuation::new(function));
        self
    }
}
