//! What an engine says of its containers, read without belief: a field that is missing or strange
//! costs that container or that port alone.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Container, Published};
use crate::api::Protocol;
use crate::text::printable;

/// The longest name that is kept, in characters.
const NAME_LIMIT: usize = 128;

/// Where a container's compose project is.
const WORKING_DIR: &str = "com.docker.compose.project.working_dir";

/// An entry of `GET /containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default, deserialize_with = "each_if_right")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "each_if_right")]
    pub(super) ports: Vec<ListedPort>,
    #[serde(default, deserialize_with = "if_right")]
    labels: Option<HashMap<String, Value>>,
    #[serde(default, deserialize_with = "if_right")]
    state: Option<String>,
}

/// A port of a container. Without a public one it is not published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedPort {
    private_port: u16,
    #[serde(default)]
    public_port: Option<u16>,
    #[serde(default, rename = "Type")]
    kind: Option<String>,
}

/// A value where it is what it should be.
fn if_right<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// Those values of a list that are what they should be.
fn each_if_right<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let values: Option<Vec<Value>> = if_right(from)?;
    Ok(right(values.unwrap_or_default()))
}

/// Those entries of an answer that are what they should be.
pub(super) fn right<T: DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
    values.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect()
}

/// `GET /containers/ID/json`, as much of it as says which ports will be published: Docker does not
/// list those of a container that does not run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Option<HashMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_port: String,
}

impl Inspected {
    /// The ports in the form of the list.
    pub(super) fn ports(&self) -> Vec<ListedPort> {
        let bindings = self.host_config.port_bindings.iter().flatten();
        let ports = bindings.filter_map(|(inside, outside)| {
            let (port, kind) = inside.split_once('/').unwrap_or((inside, "tcp"));
            Some((port.parse().ok()?, kind, outside.as_deref()?))
        });
        let ports = ports.flat_map(|(private_port, kind, outside)| {
            outside.iter().map(move |binding| ListedPort {
                private_port,
                // Empty for one that the engine will choose.
                public_port: binding.host_port.parse().ok(),
                kind: Some(kind.to_owned()),
            })
        });
        ports.collect()
    }
}

impl Listed {
    /// The engine's id of it is used in a path: only what ids are made of is.
    pub(super) fn has_plain_id(&self) -> bool {
        (1..=64).contains(&self.id.len()) && self.id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// A container that is paused or restarts keeps its ports.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.as_deref(), Some("running" | "paused" | "restarting"))
    }

    /// Where its compose project is, as compose was told.
    pub(super) fn working_dir(&self) -> Option<&Path> {
        let directory = self.labels.as_ref()?.get(WORKING_DIR)?;
        directory.as_str().map(Path::new)
    }

    /// What it is. `engine` and `uid` are whose it is.
    pub(super) fn container(&self, engine: &'static str, uid: u32) -> Container {
        let name = self.names.first().unwrap_or(&self.id);
        let name: String = name.trim_start_matches('/').chars().take(NAME_LIMIT).collect();
        Container {
            engine,
            id: self.id.clone(),
            name: printable(&name).into_owned(),
            working_dir: self.working_dir().map(Path::to_owned),
            running: self.is_running(),
            uid,
        }
    }

    /// Its published ports.
    pub(super) fn published(&self, container: &Arc<Container>) -> Vec<Published> {
        let mut published = Vec::new();
        for port in &self.ports {
            let Some((public, protocol)) = port.public_port.zip(port.protocol()) else { continue };
            let one = Published {
                port: public,
                protocol,
                container_port: port.private_port,
                container: container.clone(),
                engine: 0,
            };
            // Once for each address family.
            if public != 0 && !published.contains(&one) {
                published.push(one);
            }
        }
        published
    }
}

impl ListedPort {
    fn protocol(&self) -> Option<Protocol> {
        match self.kind.as_deref() {
            None | Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            // SCTP has ports of its own.
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn published_ports_are_read_once_for_both_families() {
        let listed: Listed = serde_json::from_value(json!({
            "Id": "6318928caad6", "Names": ["/shop-db-1"], "State": "running",
            "Labels": { "com.docker.compose.project.working_dir": "/home/u/shop" },
            "Ports": [
                { "IP": "0.0.0.0", "PrivatePort": 5432, "PublicPort": 15432, "Type": "tcp" },
                { "IP": "::", "PrivatePort": 5432, "PublicPort": 15432, "Type": "tcp" },
                { "PrivatePort": 9000, "Type": "tcp" },
                { "PrivatePort": 53, "PublicPort": 1053, "Type": "udp" },
                { "PrivatePort": 54, "PublicPort": 1054, "Type": "sctp" },
            ],
        }))
        .expect("it is as Docker writes it");
        let published = listed.published(&listed.container("docker", 0).into());
        let ports: Vec<_> =
            published.iter().map(|one| (one.port, one.protocol, one.container_port)).collect();
        assert_eq!(ports, [(15432, Protocol::Tcp, 5432), (1053, Protocol::Udp, 53)]);
        let container = &published[0].container;
        assert_eq!(container.name, "shop-db-1");
        assert_eq!(container.working_dir.as_deref(), Some("/home/u/shop".as_ref()));
        assert!(container.running && listed.has_plain_id());
    }

    #[test]
    fn what_is_missing_or_null_is_nothing() {
        let listed: Listed =
            serde_json::from_value(json!({ "Id": "../x", "Ports": null, "Labels": null }))
                .expect("an id is enough");
        assert!(listed.published(&listed.container("podman", 0).into()).is_empty());
        assert!(!listed.has_plain_id() && !listed.is_running());
    }

    #[test]
    fn what_is_strange_costs_itself_alone() {
        let all = json!([
            { "Names": ["/without-id"] }, 7, null,
            { "Id": "1f", "Names": [null, "/db"], "State": null, "Labels": 7, "Ports": {} },
            { "Id": "2f", "Names": ["/web"], "State": "running", "Ports": [
                { "PublicPort": 1 }, null, { "PrivatePort": 80, "PublicPort": 70000 },
                { "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" },
            ] },
        ]);
        let all: Vec<Listed> = right(all.as_array().expect("a list").clone());
        let found: Vec<_> = all
            .iter()
            .map(|listed| {
                let container = listed.container("docker", 0);
                let name = container.name.clone();
                let published = listed.published(&container.into());
                (name, listed.is_running(), published.iter().map(|one| one.port).collect())
            })
            .collect();
        let expected = [("db".to_owned(), false, vec![]), ("web".to_owned(), true, vec![8080])];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_bindings_of_a_stopped_container_are_its_ports() {
        let inspected: Inspected = serde_json::from_value(json!({
            "HostConfig": { "PortBindings": {
                "80/tcp": [{ "HostIp": "", "HostPort": "8080" }, { "HostPort": "" }],
                "81/tcp": null,
            } },
        }))
        .expect("it is as Docker writes it");
        let public: Vec<_> = inspected.ports().iter().map(|port| port.public_port).collect();
        assert_eq!(public, [Some(8080), None]);
    }
}
