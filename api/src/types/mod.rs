//! What the arguments and answers of callbacks are made of, in the JSON of Synapse's own objects.

mod event;
mod federation;
mod login;
mod media;
mod presence;
mod profile;
mod requester;
mod secret;

pub use event::{Event, StateEvents};
pub use federation::Delivery;
pub use login::{AuthenticatedUser, Login};
pub use media::{
    Base64, FileInfo, MEDIA_CHUNK, MediaConfig, MediaFile, MediaUploadLimit, MediaUploadLimits, RatelimitOverride,
    Thumbnail,
};
pub use presence::{InterestedUsers, Presence, UsersForStates};
pub use profile::{Profile, RequestInfo, Threepid, UserProfile};
pub use requester::Requester;
pub use secret::{Header, HttpRequest, Secret};
