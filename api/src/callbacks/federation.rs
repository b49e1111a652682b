//! Federation. Source: Synapse's `FederationModuleApiCallbacks`.

use super::category;
use crate::types::Delivery;

category! {
    /// Functions of a module that answer federation callbacks.
    Federation, FederationCallbacks, register_federation_callbacks;

    /// Another server received events.
    OnEventDeliveredOverFederation, on_event_delivered_over_federation, "1.158", Pass, Notify {
        /// What was delivered, to whom and how.
        delivery: Delivery,
    }
}
