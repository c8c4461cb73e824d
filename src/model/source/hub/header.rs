//! Headers of a repository's files by ranges, written into files with holes for the weights.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::choice::{Choice, choose};
use super::client::{Client, SMALL, Trouble};
use super::download::is_sha256;
use super::layout::CachedRepo;
use super::{cache, explain, gguf, in_cache, is_offline, kept_files, not_cached, safetensors};
use super::{missing_shard, without_network};
use crate::error::{Error, Result};
use crate::files::sha256_hex;
use crate::model::source::cache::CacheFolder;
use crate::model::source::folder::{
    CONFIG, INDEX, SafetensorsFolder, TEXT_SIDE, Weights, sha256_of_all, shards_of,
};
use crate::model::source::gguf_header::read_header;
use crate::model::source::header::HeaderFiles;
use crate::model::source::spec::HubFile;
use crate::model::source::{FetchOptions, ModelFiles};

/// Headers are no longer: 512 MiB.
const MAX_HEADER: u64 = 512 << 20;
/// Nor is that of a shard, which the format itself bounds: 100 MiB.
const MAX_SHARD_HEADER: u64 = 100 << 20;
/// Shards that are asked for at once.
const AT_ONCE: usize = 8;
/// Bytes that are asked for first, and at most at once.
const CHUNKS: (u64, u64) = (1 << 17, 1 << 24);

/// The header of a repository's model.
///
/// Errors: as [`super::fetch`]; [`Error::Fetch`] for headers that are too long or no headers.
pub(in crate::model::source) fn header(
    spec: &HubFile,
    hashes: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<HeaderFiles> {
    let whole = |files: ModelFiles| HeaderFiles::whole(files.hash_remembered(hashes));
    let cache = cache(options)?;
    let cached = CachedRepo::of(&cache, spec);
    if let Some(files) = kept_files(spec, &cached)? {
        return whole(files);
    }
    if is_offline(options) {
        return whole(in_cache(spec, &cached)?.ok_or_else(|| not_cached(spec))?);
    }
    let client = Client::new(&cache, options);
    progress(&format!("asking the hub about {}", spec.repo));
    let listing = match client.listing(spec) {
        Ok(listing) => listing,
        Err(trouble) => return whole(without_network(spec, &cached, trouble, progress)?),
    };
    let siblings = listing.siblings.into_iter();
    let names: Vec<String> = siblings.map(|file| file.rfilename).collect();
    let choice = choose(spec, &names)?;
    let file = match &choice {
        Choice::Gguf { file, .. } => Some(file.as_str()),
        Choice::Safetensors(_) => None,
    };
    if let Some(files) = kept_files(&spec.at(&listing.sha, file), &cached)? {
        return whole(files);
    }
    progress(&format!("reading the header of {spec}"));
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|e| Error::io("write into", &std::env::temp_dir(), e))?;
    let remote = Remote {
        client: &client,
        spec,
        commit: &listing.sha,
        folder: folder.path(),
    };
    let (files, bytes) = match &choice {
        Choice::Gguf { file, tokenizer } => remote.gguf(file, tokenizer.as_deref())?,
        Choice::Safetensors(weights) => remote.safetensors(weights, &names)?,
    };
    Ok(HeaderFiles::without_weights(files, bytes, folder))
}

/// A repository at one commit, and the folder that stands for it.
struct Remote<'a> {
    client: &'a Client,
    spec: &'a HubFile,
    commit: &'a str,
    folder: &'a Path,
}

/// The length of a file that was not read to its end, and its hash where the hub says it.
struct Described {
    total: u64,
    sha256: Option<String>,
}

impl Remote<'_> {
    fn gguf(&self, file: &str, tokenizer: Option<&str>) -> Result<(ModelFiles, u64)> {
        let mut reader = self.start(file, MAX_HEADER);
        let extent = read_header(&mut reader).map_err(|e| reader.failed(e))?;
        let mut ranges = vec![(0, std::mem::take(&mut reader.bytes))];
        for (start, length) in extent.factors {
            ranges.push((start, reader.exactly(start, length)?));
        }
        let described = reader.described();
        let path = self.write(file, &ranges, described.total)?;
        let tokenizer = tokenizer.map(|name| self.small(name)).transpose()?;
        let tokenizer = tokenizer.map(|(path, _)| path);
        let mut files = gguf(self.spec, self.commit, file, path, tokenizer);
        files.sha256 = described.sha256.unwrap_or_default();
        Ok((files, described.total))
    }

    fn safetensors(&self, weights: &Weights, names: &[String]) -> Result<(ModelFiles, u64)> {
        let mut hashes = Vec::new();
        let has = |name: &&str| names.iter().any(|found| found == name);
        for name in [CONFIG]
            .into_iter()
            .chain(TEXT_SIDE.into_iter().filter(has))
        {
            hashes.push((name.to_owned(), Some(self.small(name)?.1)));
        }
        let shards: Vec<String> = match weights {
            Weights::Single(name) => vec![name.clone()],
            Weights::Indexed => {
                let (index, sha256) = self.small(INDEX)?;
                hashes.push((INDEX.to_owned(), Some(sha256)));
                let shards = shards_of(&index)?;
                if let Some(missing) = shards.iter().find(|shard| !names.contains(shard)) {
                    return Err(missing_shard(&index, missing));
                }
                shards.into_iter().collect()
            }
        };
        let mut bytes = 0u64;
        for batch in shards.chunks(AT_ONCE) {
            for (name, described) in batch.iter().zip(self.shards(batch)?) {
                bytes = bytes.saturating_add(described.total);
                hashes.push((name.clone(), described.sha256));
            }
        }
        let folder = SafetensorsFolder::open(self.folder)?;
        let mut files = safetensors(self.spec, self.commit, folder);
        let known = hashes
            .into_iter()
            .map(|(name, sha256)| Some((name, sha256?)));
        let known: Option<Vec<_>> = known.collect();
        files.sha256 = known.map_or(String::new(), |known| sha256_of_all(&known));
        Ok((files, bytes))
    }

    /// The headers of a few shards at once.
    fn shards(&self, names: &[String]) -> Result<Vec<Described>> {
        std::thread::scope(|scope| {
            let threads = names.iter().map(|name| scope.spawn(|| self.shard(name)));
            let threads: Vec<_> = threads.collect();
            let stopped = |name: &String| self.no_header(name, "its reader stopped");
            let joined = names.iter().zip(threads);
            let joined = joined.map(|(name, thread)| thread.join().unwrap_or(Err(stopped(name))));
            joined.collect()
        })
    }

    fn shard(&self, name: &str) -> Result<Described> {
        let mut reader = self.start(name, MAX_SHARD_HEADER + CHUNKS.1);
        let mut length = [0; 8];
        reader
            .read_exact(&mut length)
            .map_err(|e| reader.failed(e))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_SHARD_HEADER {
            let why = format!("it has {length} bytes, more than {MAX_SHARD_HEADER}");
            return Err(self.no_header(name, &why));
        }
        let copied = io::copy(&mut reader.by_ref().take(length), &mut io::sink());
        let copied = copied.map_err(|e| reader.failed(e))?;
        if copied < length {
            return Err(self.no_header(name, "the file ends before it"));
        }
        let described = reader.described();
        self.write(name, &[(0, reader.bytes)], described.total)?;
        Ok(described)
    }

    /// A small file, whole, and its hash.
    fn small(&self, name: &str) -> Result<(PathBuf, String)> {
        let mut reader = self.start(name, SMALL);
        io::copy(&mut reader, &mut io::sink()).map_err(|e| reader.failed(e))?;
        let (total, sha256) = (reader.described().total, sha256_hex(&reader.bytes));
        let path = self.write(name, &[(0, reader.bytes)], total)?;
        Ok((path, sha256))
    }

    /// Writes a file of `total` bytes of which only these ranges are known.
    fn write(&self, name: &str, ranges: &[(u64, Vec<u8>)], total: u64) -> Result<PathBuf> {
        let path = self.folder.join(name.rsplit('/').next().unwrap_or(name));
        let write = || {
            let mut file = File::create(&path)?;
            for (start, bytes) in ranges {
                file.seek(SeekFrom::Start(*start))?;
                file.write_all(bytes)?;
            }
            file.set_len(total)
        };
        write().map_err(|e| Error::io("write", &path, e))?;
        Ok(path)
    }

    fn start<'a>(&'a self, name: &'a str, limit: u64) -> Growing<'a> {
        Growing {
            remote: self,
            name,
            limit,
            bytes: Vec::new(),
            read: 0,
            chunk: CHUNKS.0,
            described: None,
            trouble: None,
        }
    }

    fn no_header(&self, name: &str, why: &str) -> Error {
        Error::Fetch {
            what: self.spec.to_string(),
            problem: format!("the header of {name} cannot be read: {why}"),
        }
    }
}

/// The first bytes of a remote file, asked for as they are read.
struct Growing<'a> {
    remote: &'a Remote<'a>,
    name: &'a str,
    limit: u64,
    /// All bytes that have come.
    bytes: Vec<u8>,
    read: usize,
    /// How many to ask for next.
    chunk: u64,
    described: Option<Described>,
    trouble: Option<Trouble>,
}

impl Growing<'_> {
    /// Asks for the bytes that follow; none come at the file's end.
    fn grow(&mut self) -> Result<(), Trouble> {
        let have = self.bytes.len() as u64;
        if have >= self.limit {
            let (limit, name) = (self.limit, self.name);
            let said = format!("what is to be read of {name} is longer than {limit} bytes");
            return Err(Trouble::Unsound(said));
        }
        if self.described.as_ref().is_some_and(|d| have >= d.total) {
            return Ok(());
        }
        let wanted = self.chunk.min(self.limit - have);
        let (more, described) = self.range(have, wanted)?;
        self.bytes.extend(more);
        self.described = Some(described);
        self.chunk = (self.chunk * 2).min(CHUNKS.1);
        Ok(())
    }

    /// Bytes from `start` on, fewer than `wanted` only at the file's end.
    fn range(&self, start: u64, wanted: u64) -> Result<(Vec<u8>, Described), Trouble> {
        let Remote {
            client,
            spec,
            commit,
            ..
        } = self.remote;
        let last = start.saturating_add(wanted - 1);
        let mut range = client.range(&spec.repo, commit, self.name, (start, Some(last)))?;
        let described = Described {
            total: range.total,
            sha256: range.etag.filter(|etag| is_sha256(etag)),
        };
        let broken = |e: io::Error| Trouble::Unreachable(e.to_string());
        // A hub without ranges begins anew.
        let skipped = (&mut range.body).take(start - range.start);
        io::copy(&mut { skipped }, &mut io::sink()).map_err(broken)?;
        let due = wanted.min(described.total.saturating_sub(start));
        let mut more = Vec::new();
        range
            .body
            .take(due)
            .read_to_end(&mut more)
            .map_err(broken)?;
        if (more.len() as u64) < due {
            return Err(Trouble::Unreachable("it hung up".into()));
        }
        Ok((more, described))
    }

    /// Bytes elsewhere in the file.
    fn exactly(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let (bytes, _) = (self.range(start, length)).map_err(|t| explain(self.remote.spec, t))?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        let why = "a tensor ends after the file";
        Err(self.remote.no_header(self.name, why))
    }

    fn described(&mut self) -> Described {
        self.described.take().unwrap_or(Described {
            total: 0,
            sha256: None,
        })
    }

    /// Why reading failed: what the hub did, or what the bytes are.
    fn failed(&mut self, error: io::Error) -> Error {
        match self.trouble.take() {
            Some(trouble) => explain(self.remote.spec, trouble),
            None => self.remote.no_header(self.name, &error.to_string()),
        }
    }
}

impl Read for Growing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.bytes.len()
            && let Err(trouble) = self.grow()
        {
            self.trouble = Some(trouble);
            return Err(io::Error::other("the hub gave no more"));
        }
        let read = (&self.bytes[self.read..]).read(into)?;
        self.read += read;
        Ok(read)
    }
}
