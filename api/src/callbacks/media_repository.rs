//! The media repository. Source: Synapse's `MediaRepositoryModuleApiCallbacks`.

use ruma_common::OwnedUserId;

use super::category;
use crate::types::{MediaConfig, MediaUploadLimit, MediaUploadLimits};
use crate::verdict::Verdict;

category! {
    /// Functions of a module that answer media-repository callbacks.
    MediaRepository, MediaRepositoryCallbacks, register_media_repository_callbacks;

    /// The whole body of the media config for this user; a falsy one counts as none.
    GetMediaConfigForUser, get_media_config_for_user, "1.132", Error, FirstAnswer<MediaConfig>, by user_id {
        /// The user.
        user_id: OwnedUserId,
    }

    /// May this user upload a file of this size? A denial is 413 `M_TOO_LARGE`.
    IsUserAllowedToUploadMediaOfSize, is_user_allowed_to_upload_media_of_size, "1.132", Error, FirstDeny<Verdict>,
        by user_id {
        /// The user.
        user_id: OwnedUserId,
        /// The size in bytes.
        size: i64,
    }

    /// How much may this user upload in which periods? An empty list is no limit.
    GetMediaUploadLimitsForUser, get_media_upload_limits_for_user, "1.139", Error, FirstAnswer<MediaUploadLimits>,
        by user_id {
        /// The user.
        user_id: OwnedUserId,
    }

    /// A user hit an upload limit. A failure replaces the 403 that they would get by 500.
    OnMediaUploadLimitExceeded, on_media_upload_limit_exceeded, "1.139", Error, Notify, by user_id {
        /// The user.
        user_id: OwnedUserId,
        /// The limit.
        limit: MediaUploadLimit,
        /// The bytes that the user sent in the period.
        sent_bytes: i64,
        /// The bytes of this upload.
        attempted_bytes: i64,
    }
}
