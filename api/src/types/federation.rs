//! Deliveries to other servers.

use super::Event;
use crate::json::json_object;

json_object! {
    /// Events that another server received. Source: Synapse's `FederationEventDeliveryEvent`.
    Delivery {
        /// The other server.
        server_name: String,
        /// The events, never none.
        events: Vec<Event>,
        /// How they went, for example `/send` or `/backfill`; an open set.
        method: String,
    }
}
