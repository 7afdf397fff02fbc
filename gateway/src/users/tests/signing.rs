//! Tokens as an issuer signs them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

pub(super) struct Signer {
    pub algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(super) fn all() -> Vec<Self> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let all = [
            RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA,
        ];
        all.map(Signer::of).into()
    }

    pub(super) fn of(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let rsa = |encoding| {
            let pair = RsaKeyPair::from_der(include_bytes!("rsa_2048.der")).unwrap();
            Pair::Rsa(Box::new(pair), encoding)
        };
        let ec = |scheme, curve| {
            let document = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).unwrap();
            Pair::Ec(pair, curve)
        };
        let pair = match algorithm {
            Algorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::RS384 => rsa(&RSA_PKCS1_SHA384),
            Algorithm::RS512 => rsa(&RSA_PKCS1_SHA512),
            Algorithm::PS256 => rsa(&RSA_PSS_SHA256),
            Algorithm::PS384 => rsa(&RSA_PSS_SHA384),
            Algorithm::PS512 => rsa(&RSA_PSS_SHA512),
            Algorithm::ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            Algorithm::ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            _ => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Pair::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
        };
        Signer { algorithm, pair }
    }

    /// The key's id is its algorithm.
    pub(super) fn jwk(&self) -> Value {
        let id = format!("{:?}", self.algorithm);
        match &self.pair {
            Pair::Rsa(pair, _) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                let padded = [&[0][..], &public.n].concat();
                json!({"kty": "RSA", "kid": id, "alg": id, "use": "sig",
                    "n": base64(padded), "e": base64(public.e)})
            }
            Pair::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "kid": id, "x": base64(x), "y": base64(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": id,
                "x": base64(pair.public_key())}),
        }
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        let id = format!("{:?}", self.algorithm);
        self.token_with(&json!({"alg": id, "kid": id, "typ": "JWT"}), claims)
    }

    /// Signed by this key, whatever the header says.
    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let head = format!(
            "{}.{}",
            base64(header.to_string()),
            base64(claims.to_string())
        );
        let message = head.as_bytes();
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        };
        format!("{head}.{}", base64(signature))
    }
}
