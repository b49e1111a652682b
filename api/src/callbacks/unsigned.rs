//! Fields that modules add to the `unsigned` part of events for clients. Source: Synapse's event serializer.

use super::category;
use crate::json::JsonObject;
use crate::types::Event;

category! {
    /// Functions of a module that add fields to `unsigned`.
    AddExtraFieldsToUnsignedClientEvent, AddExtraFieldsToUnsignedClientEventCallbacks,
        register_add_extra_fields_to_unsigned_client_event_callbacks;

    /// Which fields does this event get? The last module wins a key, the homeserver's own keys win over all.
    AddFieldToUnsigned, add_field_to_unsigned, "1.96", Error, Merge<JsonObject>, by event {
        /// The event.
        event: Event,
    }
}
