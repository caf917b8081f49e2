//! `data:` addresses: small inputs that stand in the address itself (RFC 2397).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::percent_decode_str;
use tokio_util::bytes::Bytes;

use keelboat_engine::Digest;

use super::{
    BoxFuture, ByteStream, Condition, Metadata, OpenRequest, Opened, Protocol, TransferError,
    Validators,
};

/// `data:[<media type>][;base64],<data>`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DataProtocol;

impl Protocol for DataProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["data"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let mut bytes = decoded(&request.address)?;
            let etag = Some(format!("\"{}\"", Digest::of(&bytes)));
            let validators = Validators { etag, ..Validators::default() };
            match &request.condition {
                Condition::IfChanged(known) if known.etag == validators.etag => {
                    return Ok(Opened::Unchanged);
                }
                _ => {}
            }
            let length = Some(bytes.len() as u64);
            let metadata = Metadata { length, validators, accepts_ranges: true, media_type: None };
            let offset = request.offset.min(bytes.len() as u64);
            let rest = bytes.split_off(usize::try_from(offset).unwrap_or(bytes.len()));
            Ok(Opened::Body { metadata, offset, stream: Box::new(Once(rest)) })
        })
    }
}

fn decoded(address: &str) -> Result<Bytes, TransferError> {
    let refused = |found: &str| TransferError::Refused {
        found: found.to_owned(),
        hint: "write data:,TEXT with %20 and the like, or data:;base64,DATA".into(),
    };
    let (_, rest) = address.split_once(':').ok_or_else(|| refused("it is not a data: address"))?;
    let (kind, data) = rest.split_once(',').ok_or_else(|| refused("it has no comma"))?;
    let bytes: Vec<u8> = percent_decode_str(data).collect();
    let is_base64 = kind.rsplit(';').next().is_some_and(|last| last.eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return Ok(bytes.into());
    }
    let plain: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = STANDARD.decode(&plain).or_else(|_| STANDARD_NO_PAD.decode(&plain));
    decoded.map(Bytes::from).map_err(|error| refused(&format!("its data is not base64: {error}")))
}

struct Once(Bytes);

impl ByteStream for Once {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        let bytes = std::mem::take(&mut self.0);
        Box::pin(async move { Ok((!bytes.is_empty()).then_some(bytes)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codings_are_read() {
        let text = |address| decoded(address).ok().map(|bytes| bytes.to_vec());
        assert_eq!(text("data:,a%20b%0A"), Some(b"a b\n".to_vec()));
        assert_eq!(text("DATA:text/plain;charset=utf-8,x,y"), Some(b"x,y".to_vec()));
        assert_eq!(text("data:;base64,aGk="), Some(b"hi".to_vec()));
        assert_eq!(text("data:;base64,aGk"), Some(b"hi".to_vec()));
        assert_eq!(text("data:text/plain"), None);
        assert_eq!(text("data:;base64,%%%"), None);
    }
}
