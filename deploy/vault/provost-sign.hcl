# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Sign statements: with the three signer keys and nothing else. No rotation, no
# change of a key, no export, no backup, no CSR (which is a signature too), no HMAC.
#
# Every request must name the key version, so that a rotation never changes which
# key signs: without it Vault takes the latest. Vault has three ways around that,
# each closed below:
#   - a missing version                        required_parameters
#   - a version that means "latest": 0, "0",
#     null, false                              only a string that begins with 1 to 9 is allowed
#   - an empty string, which passes every
#     allow-list                               denied_parameters
# The client therefore sends key_version as a JSON string, "3". Numbers are refused.
# The message must come hashed: without prehashed, Vault would sign a hash of the hash.
# Only this path is granted, not transit/sign/<key>/<algorithm>, which would skip all of it.
#
# Versions are not listed, so a rotation needs no new policy: a stolen token can sign
# with any version that Vault still allows (raise min_encryption_version on the key to
# retire old ones). To tighten, list the versions in use, and write the policy again
# with each rotation, before the new version is adopted:
#   "key_version" = ["3", "4"]
#
# A process that signs for one power only should get that key's two blocks alone.
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-sign.hcl | vault policy write provost-sign -

path "transit/sign/provost-provenance" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
  }
  denied_parameters = {
    "key_version" = [""]
    "prehashed"   = [""]
  }
}

path "transit/keys/provost-provenance" {
  capabilities = ["read"]
}

path "transit/sign/provost-evidence" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
  }
  denied_parameters = {
    "key_version" = [""]
    "prehashed"   = [""]
  }
}

path "transit/keys/provost-evidence" {
  capabilities = ["read"]
}

path "transit/sign/provost-verdict" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
  }
  denied_parameters = {
    "key_version" = [""]
    "prehashed"   = [""]
  }
}

path "transit/keys/provost-verdict" {
  capabilities = ["read"]
}
