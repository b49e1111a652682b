//! How often a busy homeserver asks which callback.

use std::fmt;

use ganglion_api::CallbackSpec;

/// How often each callback is asked while a server stores 100 000 events; `docs/benchmarking.md` says why. Nothing is
/// never asked, so that every module has its rows.
const SYNAPSE: [(&str, u32); 52] = [
    ("add_field_to_unsigned", 400_000),
    ("is_user_expired", 200_000),
    ("on_new_event", 100_000),
    ("check_event_for_spam", 97_000),
    ("should_drop_federated_event", 70_000),
    ("on_event_delivered_over_federation", 60_000),
    ("check_event_allowed", 30_000),
    ("get_interested_users", 20_000),
    ("get_users_for_states", 20_000),
    ("on_account_data_updated", 5_000),
    ("check_username_for_spam", 4_000),
    ("check_media_file_for_spam", 2_000),
    ("get_ratelimit_override_for_user", 1_800),
    ("user_may_join_room", 1_000),
    ("user_may_invite", 600),
    ("get_media_config_for_user", 500),
    ("user_may_send_state_event", 500),
    ("get_media_upload_limits_for_user", 300),
    ("is_user_allowed_to_upload_media_of_size", 300),
    ("on_profile_update", 300),
    ("accept_make_join", 200),
    ("check_login_for_spam", 200),
    ("federated_user_may_invite", 200),
    ("on_user_login", 200),
    ("auth_checkers", 150),
    ("on_logged_out", 150),
    ("on_create_room", 100),
    ("user_may_create_room", 100),
    ("check_registration_for_spam", 50),
    ("check_visibility_can_be_modified", 20),
    ("get_displayname_for_registration", 20),
    ("get_username_for_registration", 20),
    ("is_3pid_allowed", 20),
    ("min_batch_size", 20),
    ("on_update", 20),
    ("on_user_registration", 20),
    ("check_3pid_auth", 10),
    ("on_add_user_third_party_identifier", 10),
    ("on_threepid_bind", 10),
    ("user_may_create_room_alias", 10),
    ("check_threepid_can_be_invited", 5),
    ("on_legacy_renew", 5),
    ("on_legacy_send_mail", 5),
    ("user_may_publish_room", 5),
    ("user_may_send_3pid_invite", 5),
    ("check_can_deactivate_user", 3),
    ("on_media_upload_limit_exceeded", 3),
    ("on_remove_user_third_party_identifier", 3),
    ("on_user_deactivation_status_changed", 3),
    ("check_can_shutdown_room", 1),
    ("default_batch_size", 1),
    ("on_legacy_admin_request", 1),
];

/// How often a callback is asked while a busy server stores 100 000 events.
fn frequency(callback: &str) -> u32 {
    let found = SYNAPSE.iter().find(|(name, _)| *name == callback);
    // A callback that is new here is as rare as the rarest.
    found.map_or(1, |(_, frequency)| *frequency)
}

/// Which callbacks are asked, and how often each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mix {
    /// As a busy server asks.
    Synapse,
    /// These, each as often as the others.
    Named(Vec<&'static CallbackSpec>),
}

impl Mix {
    /// How often a callback is asked, by comparison with the others; 0 is never.
    pub(crate) fn weight(&self, callback: &str) -> u32 {
        match self {
            Self::Synapse => frequency(callback),
            Self::Named(named) => u32::from(named.iter().any(|spec| spec.name == callback)),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synapse => f.write_str("mix synapse"),
            Self::Named(named) => {
                let names: Vec<_> = named.iter().map(|spec| spec.name).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// An order of questions: first each position once, so that the rarest is asked too, then each as often as its weight
/// says, spread over the whole. `length` of them if anything has a weight, and never less than one of each.
pub(super) fn order(weights: &[u32], length: usize) -> Vec<usize> {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let mut order: Vec<usize> = (0..weights.len()).filter(|position| weights[*position] > 0).collect();
    let mut owed = vec![0_i64; weights.len()];
    while total > 0 && order.len() < length {
        for (owed, weight) in owed.iter_mut().zip(weights) {
            *owed += i64::from(*weight);
        }
        let most = (0..owed.len()).max_by_key(|position| (owed[*position], std::cmp::Reverse(*position)));
        let next = most.unwrap_or_default();
        owed[next] -= total;
        order.push(next);
    }
    order
}

#[cfg(test)]
mod tests {
    use ganglion_api::reference;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_callback_has_a_frequency_and_nothing_else_has() {
        let mut names: Vec<_> = SYNAPSE.map(|(name, _)| name).to_vec();
        names.sort_unstable();
        let mut expected: Vec<_> = reference().iter().map(|spec| spec.name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert!(SYNAPSE.iter().all(|(_, frequency)| *frequency > 0));
    }

    #[test]
    fn the_documented_frequencies_are_these_and_sum_up_as_documented() {
        let text = include_str!("../../docs/benchmarking.md");
        for (name, frequency) in SYNAPSE {
            let mut rows = text.lines().filter(|line| line.starts_with(&format!("| `{name}` |")));
            let row = rows.next().unwrap_or_else(|| panic!("{name} is not documented"));
            assert_eq!(rows.next(), None, "{name} is documented twice");
            let documented: String = row
                .split('|')
                .nth(2)
                .unwrap()
                .chars()
                .filter(char::is_ascii_digit)
                .collect();
            assert_eq!(documented, frequency.to_string(), "{name}");
        }
        let sum: u32 = SYNAPSE.iter().map(|(_, frequency)| frequency).sum();
        assert!(text.contains(&format!("{} questions", thousands(sum))), "{sum}");
    }

    fn thousands(number: u32) -> String {
        format!(
            "{} {:03} {:03}",
            number / 1_000_000,
            number / 1000 % 1000,
            number % 1000
        )
    }

    proptest! {
        #[test]
        fn each_is_asked_and_has_its_share(weights in prop::collection::vec(0_u32..1000, 1..8), length in 0_usize..2000) {
            let order = order(&weights, length);
            let total: u32 = weights.iter().sum();
            let asked = weights.iter().filter(|weight| **weight > 0).count();
            prop_assert_eq!(order.len(), if total == 0 { 0 } else { length.max(asked) });
            for (position, weight) in weights.iter().enumerate() {
                let count = order.iter().filter(|next| **next == position).count();
                prop_assert_eq!(count > 0, *weight > 0);
                if total > 0 {
                    let share = f64::from(*weight) * order.len() as f64 / f64::from(total);
                    prop_assert!((count as f64 - share).abs() <= 2.0 * weights.len() as f64, "{} of {}", count, share);
                }
            }
        }
    }
}
