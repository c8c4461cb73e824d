//! Requests to the hub: listings and ranges of files, with the token for the hub's own host alone.

use std::io::Read;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::RepoInfo;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::layout::is_commit;
use crate::model::source::FetchOptions;
use crate::model::source::spec::HubFile;

/// Speaks with one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// Why the hub gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No answer, or one that broke off; another try may help.
    Unreachable(String),
    /// An answer with this status.
    Refused(u16),
    /// An answer that makes no sense.
    Unsound(String),
}

/// Bytes of a file from `start` on.
pub(super) struct Range {
    pub(super) body: Box<dyn Read>,
    pub(super) start: u64,
    /// Bytes of the whole file.
    pub(super) total: u64,
    /// What names the file's content; the SHA-256 of large files.
    pub(super) etag: Option<String>,
}

const HUB: &str = "https://huggingface.co";
/// Redirections that are followed, at most.
const HOPS: usize = 10;
/// Listings and small files are no larger: 64 MiB.
pub(super) const SMALL: u64 = 64 << 20;

impl Client {
    pub(super) fn new(cache: &Cache, options: &FetchOptions) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given = options.hub_endpoint.clone().or_else(|| set("HF_ENDPOINT"));
        let endpoint = given.unwrap_or_else(|| HUB.to_owned());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("kvprof/", env!("CARGO_PKG_VERSION")))
            // Offsets count the file's own bytes.
            .accept_encoding("identity")
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .into();
        Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN").or_else(|| token(cache, options)),
        }
    }

    /// The commit of a revision and the names of its files.
    pub(super) fn listing(&self, spec: &HubFile) -> Result<RepoInfo, Trouble> {
        let revision = spec.revision().replace('/', "%2F");
        let (endpoint, repo) = (&self.endpoint, &spec.repo);
        let address = format!("{endpoint}/api/models/{repo}/revision/{revision}");
        let (response, _) = self.get(&address, None)?;
        let mut body = response.into_body();
        let text = body.with_config().limit(SMALL).read_to_vec();
        let text = text.map_err(|e| Trouble::Unreachable(e.to_string()))?;
        let listing: RepoInfo = serde_json::from_slice(&text)
            .map_err(|e| Trouble::Unsound(format!("the listing is not what a hub sends: {e}")))?;
        if !is_commit(&listing.sha) {
            return Err(Trouble::Unsound(format!(
                "'{}' is not a commit",
                listing.sha
            )));
        }
        Ok(listing)
    }

    /// Bytes of a file from `first` to `last`, or to its end.
    ///
    /// A hub that knows no ranges sends the file from its start; `start` tells.
    pub(super) fn range(
        &self,
        repo: &str,
        commit: &str,
        name: &str,
        (first, last): (u64, Option<u64>),
    ) -> Result<Range, Trouble> {
        let address = format!("{}/{repo}/resolve/{commit}/{name}", self.endpoint);
        let last = last.map_or(String::new(), |last| last.to_string());
        let (response, etag) = self.get(&address, Some(&format!("bytes={first}-{last}")))?;
        let unsound = || Trouble::Unsound(format!("the hub does not say how long {name} is"));
        let (start, total) = if response.status().as_u16() == 206 {
            let range = text_of(response.headers(), "content-range").and_then(content_range);
            range.ok_or_else(unsound)?
        } else {
            let length = text_of(response.headers(), "content-length");
            (0, length.and_then(|n| n.parse().ok()).ok_or_else(unsound)?)
        };
        if start != first && start != 0 {
            return Err(Trouble::Unsound(format!(
                "the hub sent {name} from byte {start} on, not from {first}"
            )));
        }
        Ok(Range {
            body: Box::new(response.into_body().into_reader()),
            start,
            total,
            etag,
        })
    }

    /// Follows redirections, and picks up the tag that the hub itself gives.
    fn get(
        &self,
        address: &str,
        range: Option<&str>,
    ) -> Result<(Response<Body>, Option<String>), Trouble> {
        let (mut address, mut etag, mut linked) = (address.to_owned(), None, None);
        for _ in 0..HOPS {
            let at_hub = origin(&address) == origin(&self.endpoint);
            let mut request = self.agent.get(&address);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call();
            let response = response.map_err(|e| Trouble::Unreachable(e.to_string()))?;
            let headers = response.headers();
            linked = linked.or_else(|| tag(headers, "x-linked-etag"));
            if at_hub || etag.is_none() {
                etag = tag(headers, "etag").or(etag);
            }
            match response.status().as_u16() {
                200 | 206 => return Ok((response, linked.or(etag))),
                301 | 302 | 303 | 307 | 308 => {
                    let target = text_of(headers, "location").and_then(|to| joined(&address, to));
                    address = target.ok_or_else(|| {
                        Trouble::Unsound("the hub redirects to nowhere that is safe".into())
                    })?;
                }
                status => return Err(Trouble::Refused(status)),
            }
        }
        Err(Trouble::Unsound(format!(
            "the hub redirects more than {HOPS} times"
        )))
    }
}

/// The token of `hf auth login`, which lies beside the usual cache wherever files go.
fn token(cache: &Cache, options: &FetchOptions) -> Option<String> {
    let has_home = std::env::var("HF_HOME").is_ok() || dirs::home_dir().is_some();
    if options.hub_cache.is_none() && has_home {
        // The crate would panic without a home folder.
        Cache::from_env().token()
    } else {
        cache.token()
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A tag without its quotes, if it can be a file's name.
fn tag(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = text_of(headers, name)?;
    let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(is_plain);
    (is_name && !text.starts_with('.')).then(|| text.to_owned())
}

/// Start and total of `bytes 0-9/100`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, total): (u64, u64, u64) =
        (start.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (start <= last && last < total).then_some((start, total))
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> Option<(String, String)> {
    let uri: Uri = address.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    Some((scheme.to_owned(), authority.to_owned()))
}

/// Where a redirection leads; never from an encrypted connection to one in the open.
fn joined(from: &str, to: &str) -> Option<String> {
    let (scheme, authority) = origin(from)?;
    if to.starts_with('/') && !to.starts_with("//") {
        return Some(format!("{scheme}://{authority}{to}"));
    }
    let (target, _) = origin(to)?;
    (target == "https" || target == scheme).then(|| to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_stay_encrypted() {
        let from = "https://hub/a/b?c";
        assert_eq!(joined(from, "/d"), Some("https://hub/d".to_owned()));
        assert_eq!(joined(from, "https://cdn/d"), Some("https://cdn/d".into()));
        assert_eq!(joined(from, "http://cdn/d"), None);
        assert_eq!(
            joined("http://hub", "http://cdn"),
            Some("http://cdn".into())
        );
        assert_eq!(joined(from, "//cdn/d"), None);
        assert_eq!(joined(from, "file:///etc/passwd"), None);
    }

    #[test]
    fn ranges_and_tags_are_read_or_refused() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        for text in ["bytes 5-9/*", "bytes 9-5/10", "bytes 5-10/10", "5-9/10"] {
            assert_eq!(content_range(text), None, "{text}");
        }
        let tag_of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("etag", text.parse().unwrap());
            tag(&headers, "etag")
        };
        assert_eq!(tag_of("W/\"ab-1\"").as_deref(), Some("ab-1"));
        for text in ["\"../../x\"", "..", "", "a/b", "\"a b\""] {
            assert_eq!(tag_of(text), None, "{text}");
        }
    }
}
