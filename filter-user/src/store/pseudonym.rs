//! Pseudonyms of numbers in the audit: a number can be erased, and the chain stays valid.
//!
//! `#` and 32 hex digits: the first 16 bytes of HMAC-SHA-256 (RFC 2104) over the number as text.
//! Its key of 32 bytes is created with the table and stays in the store. A user with the store who knows
//! a number can still find its records. The records alone do not reveal a number.

use hmac::{Hmac, KeyInit as _, Mac as _};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _};
use sha2::Sha256;

use crate::store::error::Error;
use crate::store::hex::{hex, unhex};
use crate::store::reader::Reader;

/// Name of the key in the table `state`; its value is a JSON text of hex digits.
const KEY: &str = "audit-key";

/// Makes pseudonyms with the key of one store.
#[derive(Clone, Debug)]
pub struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// Reads the key of an open store.
    pub(crate) fn of(conn: &Connection) -> rusqlite::Result<Pseudonyms> {
        let sql = "SELECT value FROM state WHERE key = ?1";
        let text: Option<String> =
            conn.prepare_cached(sql)?.query_row([KEY], |row| row.get(0)).optional()?;
        let key = text.as_deref().and_then(|text| unhex(text.trim_matches('"')));
        let mac = key.and_then(|key| Hmac::new_from_slice(&key).ok());
        mac.map(Pseudonyms).ok_or_else(|| {
            let gone = "the key of the audit's pseudonyms is gone".into();
            rusqlite::Error::FromSqlConversionFailure(0, Type::Text, gone)
        })
    }

    /// Returns the pseudonym of a number or prefix in its text form.
    #[must_use]
    pub fn pseudonym(&self, number: &str) -> String {
        let code = self.0.clone().chain_update(number).finalize().into_bytes();
        format!("#{}", hex(&code[..16]))
    }
}

impl Reader {
    /// Returns the identity of this store and its copies: 16 hex digits, not secret.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, or its key is gone.
    pub fn identity(&self) -> Result<String, Error> {
        let pseudonym = self.pseudonyms()?.pseudonym("the store itself");
        Ok(pseudonym[1..=16].to_owned())
    }

    /// Returns the pseudonyms with this store's key.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, or its key is gone.
    pub fn pseudonyms(&self) -> Result<Pseudonyms, Error> {
        self.get(Pseudonyms::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::*;

    #[test]
    fn a_pseudonym_is_an_hmac_under_the_key_of_the_store() {
        let home = Home::new();
        drop(home.store());
        let set = |key: &str| {
            home.tamper(&format!("UPDATE state SET value = '{key}' WHERE key = 'audit-key'"));
        };
        set(&format!("\"{}\"", "0b".repeat(32)));
        // printf 6281234567890 | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b…
        let expected = "#270e56eb2cad1e558fe8b9691daf7f77";
        let names = home.store().reader().pseudonyms().unwrap();
        assert_eq!(names.pseudonym("6281234567890"), expected);

        let other = Home::new().store().reader().pseudonyms().unwrap();
        assert_ne!(other.pseudonym("6281234567890"), expected, "each store has its own key");
        for bad in ["", "\"0b\"", &"zz".repeat(32)] {
            set(bad);
            let error = crate::store::Store::open(&home.path).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            assert!(error.message().contains("pseudonyms"), "{error}");
        }
    }
}
