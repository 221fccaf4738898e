//! `GET /rate`: limits and controller in force. `PUT /rate`: other ones, with the token.
//!
//! Promises: what a request does not mention stays as it is; a refused request changes nothing. A change counts until the
//! process ends; the settings are not touched.

use crate::clock;
use crate::pipeline::Control;
use crate::rate::Kind;
use crate::rate::governor::{Governor, InForce};
use crate::rate::limits::{Limit, Limits};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const CONTROLLERS: [(&str, Kind); 3] = [("none", Kind::None), ("pid", Kind::Pid), ("self-tuning", Kind::SelfTuning)];

#[derive(Clone)]
struct Access {
    control: Control,
    token: Arc<str>,
}

/// The routes; with an empty token nothing can be changed.
pub(super) fn routes(control: Control, token: String) -> Router {
    Router::new().route("/rate", get(show).put(change)).with_state(Access { control, token: token.into() })
}

async fn show(State(access): State<Access>) -> Response {
    match access.control.governor() {
        Some(governor) => Json(shown(&governor.in_force())).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the pipeline is starting"),
    }
}

async fn change(State(access): State<Access>, headers: HeaderMap, body: Bytes) -> Response {
    if access.token.is_empty() {
        return refuse(StatusCode::FORBIDDEN, "server.token is not set: nothing can be changed");
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !equal(given.as_bytes(), access.token.as_bytes()) {
        return refuse(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
    }
    let Some(governor) = access.control.governor() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the pipeline is starting");
    };
    let wanted = match serde_json::from_slice::<Map<String, Value>>(&body) {
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("not a JSON object: {error}")),
        Ok(wanted) => wanted,
    };
    if let Err(why) = apply(&governor, &wanted) {
        return refuse(StatusCode::BAD_REQUEST, &why);
    }
    let now = shown(&governor.in_force());
    tracing::info!(%now, "the rate was changed");
    Json(now).into_response()
}

fn refuse(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}

/// Takes the same time wherever the first difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn shown(in_force: &InForce) -> Value {
    let Limits { pipeline, each_topic, each_partition, .. } = &in_force.limits;
    let controller = CONTROLLERS.iter().find(|(_, kind)| *kind == in_force.kind).map(|(name, _)| *name);
    json!({
        "controller": controller, "rate": in_force.rate,
        "records": pipeline.records, "bytes": pipeline.bytes,
        "topic_records": each_topic.records, "topic_bytes": each_topic.bytes,
        "partition_records": each_partition.records, "partition_bytes": each_partition.bytes,
    })
}

fn apply(governor: &Governor, wanted: &Map<String, Value>) -> Result<(), String> {
    let mut limits = governor.in_force().limits;
    let mut kind = None;
    for (name, value) in wanted {
        if name == "controller" {
            let known = CONTROLLERS.iter().find(|(name, _)| value.as_str() == Some(name));
            kind = Some(known.ok_or("controller must be none, pid or self-tuning")?.1);
        } else {
            let place = field(&mut limits, name).ok_or_else(|| format!("{name} is not known"))?;
            *place =
                limit(value).ok_or_else(|| format!("{name} must be a number of at least 1, or null for no limit"))?;
        }
    }
    governor.set_limits(limits, clock::monotonic());
    if let Some(kind) = kind {
        governor.set_controller(kind, clock::monotonic());
    }
    Ok(())
}

fn field<'a>(limits: &'a mut Limits, name: &str) -> Option<&'a mut Option<f64>> {
    let Limits { pipeline, each_topic, each_partition, .. } = limits;
    let of = |limit: &'a mut Limit, records| if records { &mut limit.records } else { &mut limit.bytes };
    Some(match name {
        "records" => of(pipeline, true),
        "bytes" => of(pipeline, false),
        "topic_records" => of(each_topic, true),
        "topic_bytes" => of(each_topic, false),
        "partition_records" => of(each_partition, true),
        "partition_bytes" => of(each_partition, false),
        _ => return None,
    })
}

/// `Some(None)`: no limit.
#[allow(clippy::option_option)] // what was asked for, if it can be understood
fn limit(value: &Value) -> Option<Option<f64>> {
    match value {
        Value::Null => Some(None),
        value => value.as_f64().filter(|limit| *limit >= 1.0).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Settings;
    use std::time::Duration;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_named_changes_and_a_refused_request_changes_nothing() {
        let none = Settings::new(Kind::None, Duration::from_secs(1));
        let governor = Governor::new(Limits::default(), none, Duration::ZERO);
        apply(&governor, &object(r#"{"records": 500, "partition_bytes": 1000}"#)).unwrap();
        apply(&governor, &object(r#"{"partition_bytes": null, "topic_records": 7}"#)).unwrap();
        let now = shown(&governor.in_force());
        assert_eq!(
            (&now["records"], &now["partition_bytes"], &now["topic_records"]),
            (&json!(500.0), &json!(null), &json!(7.0))
        );
        for wrong in
            [r#"{"records": 0}"#, r#"{"records": "9"}"#, r#"{"recrods": 9}"#, r#"{"records": 9, "controller": "x"}"#]
        {
            assert!(apply(&governor, &object(wrong)).is_err(), "{wrong}");
            assert_eq!(shown(&governor.in_force()), now);
        }
        apply(&governor, &object(r#"{"controller": "pid"}"#)).unwrap();
        assert_eq!(shown(&governor.in_force())["controller"], "pid");
    }

    #[test]
    fn tokens_are_compared_whole() {
        for (a, b, same) in [("ab", "ab", true), ("ab", "abc", false), ("ab", "ac", false), ("", "", true)] {
            assert_eq!(equal(a.as_bytes(), b.as_bytes()), same);
        }
    }
}
