//! One value as it was given, in TOML or as text, and the types that keys read it as.

use std::fmt;
use std::net::IpAddr;

use toml::de::DeValue;

use super::problem::nearest;

/// A host and a port: `127.0.0.1:9092`, `broker-1.example.com:9092`, `[::1]:9092`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// A host and a port.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads what [`fmt::Display`] writes; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
            None => host,
        };
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let legal = host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(name));
        (legal && (text.starts_with('[') || !host.contains(':'))).then(|| Self { host: host.into(), port })
    }

    /// Whether it stands for every interface (`0.0.0.0`, `[::]`): fine to listen on, not to connect to.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A value as it was given. Its readers return what it must be if it is not.
pub(super) enum Given<'a> {
    Toml(&'a DeValue<'a>),
    Text(&'a str),
}

impl Given<'_> {
    /// "must be …, not …"
    fn must_be(&self, what: &str) -> String {
        match self {
            Self::Toml(value) => match value {
                DeValue::String(text) => format!("must be {what}, not \"{text}\""),
                DeValue::Integer(number) => format!("must be {what}, not {number}"),
                DeValue::Boolean(yes) => format!("must be {what}, not {yes}"),
                other => format!("must be {what}, not a {}", other.type_str()),
            },
            Self::Text(text) => format!("must be {what}, not `{text}`"),
        }
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    pub(super) fn text(&self) -> Result<String, String> {
        let text = self.as_text().filter(|text| !text.is_empty());
        text.map(Into::into).ok_or_else(|| self.must_be("a text that is not empty"))
    }

    pub(super) fn text_or_empty(&self) -> Result<Option<String>, String> {
        let text = self.as_text().ok_or_else(|| self.must_be("a text"))?;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    pub(super) fn number<T: Copy + TryFrom<i128> + Into<i128>>(&self, min: T, max: T) -> Result<T, String> {
        let number = match self {
            Self::Toml(value) => {
                value.as_integer().and_then(|number| i128::from_str_radix(number.as_str(), number.radix()).ok())
            }
            Self::Text(text) => text.trim().parse().ok(),
        };
        let in_range = number.filter(|number| (min.into()..=max.into()).contains(number));
        let number = in_range.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.must_be(&format!("an integer from {} to {}", min.into(), max.into())))
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        let yes = match self {
            Self::Toml(value) => value.as_bool(),
            Self::Text(text) => text.parse().ok(),
        };
        yes.ok_or_else(|| self.must_be("true or false"))
    }

    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let text = self.as_text();
        if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == text) {
            return Ok(*value);
        }
        let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let near = text.and_then(|text| nearest(text, words.iter().map(|(word, _)| *word)));
        let hint = near.map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default();
        Err(self.must_be(&all) + &hint)
    }

    /// What tracing's filter takes, but strictly: to it a misspelt level is the name of a target that says everything.
    pub(super) fn levels(&self) -> Result<String, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let text = self.as_text().unwrap_or_default();
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            if !LEVELS.contains(&level) {
                let near = nearest(level, LEVELS);
                let hint = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
                let what = "one of off, error, warn, info, debug, trace, or pairs like \"info,ottla::raft=debug\"";
                return Err(self.must_be(what) + &hint);
            }
        }
        Ok(text.into())
    }

    pub(super) fn address(&self) -> Result<HostPort, String> {
        let address = self.as_text().and_then(HostPort::parse);
        address.ok_or_else(|| self.must_be("an address with a port, like \"127.0.0.1:9092\""))
    }

    /// A list in TOML; in a text, with commas.
    pub(super) fn addresses(&self) -> Result<Vec<HostPort>, String> {
        let all = match self {
            Self::Toml(DeValue::Array(items)) => {
                items.iter().map(|item| item.get_ref().as_str().and_then(HostPort::parse)).collect()
            }
            Self::Text("") => Some(Vec::new()),
            Self::Text(text) => text.split(',').map(|item| HostPort::parse(item.trim())).collect::<Option<Vec<_>>>(),
            Self::Toml(_) => None,
        };
        all.ok_or_else(|| self.must_be("a list of addresses with ports, like [\"broker-1:9192\", \"broker-2:9192\"]"))
    }

    pub(super) fn address_or_empty(&self) -> Result<Option<HostPort>, String> {
        if self.as_text() == Some("") { Ok(None) } else { self.address().map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_what_it_prints() {
        for text in ["127.0.0.1:9092", "[::1]:0", "broker-1.example.com:65535", "localhost:1"] {
            assert_eq!(HostPort::parse(text).expect(text).to_string(), text);
        }
        for text in ["", "localhost", "localhost:", ":9092", "host:65536", "::1:9092", "[x]:1", "a b:1", "1.2.3.4:-1"] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_interface_is_told_from_one() {
        assert!(HostPort::new("0.0.0.0", 1).is_unspecified());
        assert!(HostPort::new("::", 1).is_unspecified());
        assert!(!HostPort::new("localhost", 1).is_unspecified());
    }
}
