//! Which of the keys of TLS need which others, and the files that each listener uses. It opens none of them.

use std::path::Path;

use super::Config;
use crate::transport::{certificates::Files, identity::DeviceIdFrom};

/// What does not fit: the key, and what is wrong with it.
pub(super) fn misfits(config: &Config) -> Vec<(&'static str, String)> {
    let mqtt = &config.mqtt;
    let mut found = Vec::new();
    let mut needs = |key: &'static str, is_set: bool, other: &str, has_other: bool| {
        if is_set && !has_other {
            found.push((key, format!("{key} is set and {other} is not; allowed: both, or neither")));
        }
    };
    let (cert, key) = (mqtt.tls_cert.is_some(), mqtt.tls_key.is_some());
    for (name, binds) in [("mqtt.tls_bind", &mqtt.tls_bind), ("mqtt.wss_bind", &mqtt.wss_bind)] {
        needs(name, !binds.is_empty(), "mqtt.tls_cert", cert);
    }
    needs("mqtt.tls_cert", cert, "mqtt.tls_key", key);
    needs("mqtt.tls_key", key, "mqtt.tls_cert", cert);
    let client_ca = mqtt.tls_client_ca.is_some();
    needs("mqtt.tls_client_ca", client_ca, "mqtt.tls_cert", cert);
    needs("mqtt.tls_crl", mqtt.tls_crl.is_some(), "mqtt.tls_client_ca", client_ca);
    needs("mqtt.tls_device_id", mqtt.tls_device_id != DeviceIdFrom::None, "mqtt.tls_client_ca", client_ca);
    let (own_cert, own_key) = (config.http.tls_cert.is_some(), config.http.tls_key.is_some());
    needs("http.tls_cert", own_cert, "http.tls_key", own_key);
    needs("http.tls_key", own_key, "http.tls_cert", own_cert);
    needs("http.tls_bind", !config.http.tls_bind.is_empty(), "http.tls_cert or mqtt.tls_cert", own_cert || cert);
    found
}

impl Config {
    /// The files of the MQTT listeners over TLS, if there is one.
    pub(crate) fn mqtt_tls(&self) -> Option<Files> {
        let mqtt = &self.mqtt;
        let used = !mqtt.tls_bind.is_empty() || !mqtt.wss_bind.is_empty();
        let files = files("mqtt", mqtt.tls_cert.as_ref()?, mqtt.tls_key.as_ref()?);
        used.then(|| Files {
            client_ca: mqtt.tls_client_ca.clone(),
            crl: mqtt.tls_crl.clone(),
            require_client_cert: mqtt.tls_require_client_cert,
            ..files
        })
    }

    /// The files of the HTTP listeners over TLS, if there is one: their own, or else those of MQTT.
    pub(crate) fn http_tls(&self) -> Option<Files> {
        let (http, mqtt) = (&self.http, &self.mqtt);
        let own = http.tls_cert.as_ref().zip(http.tls_key.as_ref());
        let files = match own {
            Some((cert, key)) => files("http", cert, key),
            None => files("mqtt", mqtt.tls_cert.as_ref()?, mqtt.tls_key.as_ref()?),
        };
        (!http.tls_bind.is_empty()).then_some(files)
    }
}

fn files(section: &'static str, cert: &Path, key: &Path) -> Files {
    Files {
        section,
        cert: cert.to_owned(),
        key: key.to_owned(),
        client_ca: None,
        crl: None,
        require_client_cert: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_what() {
        let addresses = vec!["127.0.0.1:8883".parse().unwrap()];
        let mut config = Config::default();
        assert_eq!(misfits(&config), []);
        config.mqtt.tls_bind = addresses.clone();
        config.mqtt.tls_key = Some("key.pem".into());
        config.mqtt.tls_crl = Some("crl.pem".into());
        config.http.tls_bind = addresses;
        let keys: Vec<_> = misfits(&config).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["mqtt.tls_bind", "mqtt.tls_key", "mqtt.tls_crl", "http.tls_bind"]);
        config.mqtt.tls_cert = Some("cert.pem".into());
        config.mqtt.tls_client_ca = Some("ca.pem".into());
        assert_eq!(misfits(&config), []);
        assert!(config.mqtt_tls().is_some_and(|files| files.client_ca.is_some() && files.require_client_cert));
        assert!(config.http_tls().is_some_and(|files| files.client_ca.is_none() && files.section == "mqtt"));
    }
}
