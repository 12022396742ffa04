//! Who a client's certificate says it is. Pure.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Which part of a certificate names the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceIdFrom {
    /// None: a certificate lets its client in, as whom it likes.
    None,
    /// The subject's common name.
    Cn,
    /// The DNS names of the subject's alternative names.
    SanDns,
    /// The URIs of the subject's alternative names.
    SanUri,
}

/// What a verified certificate of a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsIdentity {
    /// The subject, for logs.
    pub(crate) subject: Box<str>,
    /// The client ids that its bearer may have; `None`: any.
    pub(crate) device_ids: Option<Vec<Box<str>>>,
}

impl TlsIdentity {
    /// Reads a certificate that the handshake has verified.
    pub(crate) fn of(der: &[u8], from: DeviceIdFrom) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            // It was verified by another parser: whatever this is, it names no device.
            return Self { subject: "unreadable".into(), device_ids: (from != DeviceIdFrom::None).then(Vec::new) };
        };
        let names =
            || certificate.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.iter());
        let device_ids = match from {
            DeviceIdFrom::None => None,
            DeviceIdFrom::Cn => {
                let names = certificate.subject().iter_common_name();
                Some(names.filter_map(|name| name.as_str().ok()).map(Box::from).collect())
            }
            DeviceIdFrom::SanDns => Some(names().into_iter().flatten().filter_map(dns).map(Box::from).collect()),
            DeviceIdFrom::SanUri => Some(names().into_iter().flatten().filter_map(uri).map(Box::from).collect()),
        };
        Self { subject: certificate.subject().to_string().into(), device_ids }
    }

    /// The one client id that its bearer may have, if it is one.
    pub(crate) fn only_device_id(&self) -> Option<&str> {
        match self.device_ids.as_deref() {
            Some([id]) => Some(id),
            _ => None,
        }
    }

    /// Why its bearer may not have this client id, if so.
    pub(crate) fn refuses(&self, client_id: &str) -> Option<String> {
        let ids = self.device_ids.as_deref()?;
        if ids.iter().any(|id| **id == *client_id) {
            return None;
        }
        Some(match ids {
            [] => format!(
                "the client's certificate ({}) names no device where mqtt.tls_device_id looks for it",
                self.subject
            ),
            [id] => format!("the client's certificate is {id:?}'s; connect with that client id"),
            [first, others @ ..] => {
                format!(
                    "the client's certificate is {first:?}'s and that of {} others; connect with such a client id",
                    others.len()
                )
            }
        })
    }
}

fn dns<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(name) = name { Some(name) } else { None }
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(name) = name { Some(name) } else { None }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(cn: Option<&str>, dns: &[&str], uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(cn) = cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        let uris = uris.iter().map(|name| SanType::URI((*name).try_into().unwrap()));
        params.subject_alt_names = dns.chain(uris).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_part_that_is_asked_for_names_the_device() {
        let der = certificate(Some("pump 7"), &["pump-7.plant.example"], &["urn:pump:7", "urn:pump:8"]);
        let ids = |from| TlsIdentity::of(&der, from).device_ids;
        let boxed = |names: &[&str]| Some(names.iter().map(|name| Box::from(*name)).collect::<Vec<_>>());
        assert_eq!(ids(DeviceIdFrom::None), None);
        assert_eq!(ids(DeviceIdFrom::Cn), boxed(&["pump 7"]));
        assert_eq!(ids(DeviceIdFrom::SanDns), boxed(&["pump-7.plant.example"]));
        assert_eq!(ids(DeviceIdFrom::SanUri), boxed(&["urn:pump:7", "urn:pump:8"]));
        assert_eq!(TlsIdentity::of(&der, DeviceIdFrom::Cn).only_device_id(), Some("pump 7"));
        assert_eq!(TlsIdentity::of(&der, DeviceIdFrom::SanUri).only_device_id(), None);
    }

    #[test]
    fn any_other_client_id_is_refused_and_told_what_would_do() {
        let identity = TlsIdentity::of(&certificate(Some("pump"), &[], &["urn:a", "urn:b"]), DeviceIdFrom::SanUri);
        assert_eq!(identity.refuses("urn:b"), None);
        assert!(identity.refuses("pump").is_some_and(|text| text.contains("\"urn:a\"'s and that of 1 others")));
        // A certificate that names nobody is nobody's, and so is one that cannot be read.
        for nameless in [certificate(None, &[], &[]), b"nonsense".to_vec()] {
            let identity = TlsIdentity::of(&nameless, DeviceIdFrom::Cn);
            assert!(identity.refuses("").is_some() && identity.refuses("pump").is_some());
        }
        assert_eq!(TlsIdentity::of(b"nonsense", DeviceIdFrom::None).refuses("pump"), None);
    }
}
