# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Make the five keys: for a one-off ceremony, with a token that is revoked after it.
# Only ECDSA P-256, and nothing else may be said: not exportable, no plaintext
# backup, not derived. The transit engine itself is mounted by whoever runs Vault.
#
# Read the keys afterwards and check their type: Vault answers 200 and changes
# nothing where a key exists, whatever its type, and makes an AES key where the
# request names no type. (required_parameters would refuse that, but Vault applies
# it to reads as well.)
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-init.hcl | vault policy write provost-init -

path "transit/keys/provost-provenance" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-evidence" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-verdict" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-issuing" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-timestamp" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

# A ceremony that was killed half-way, between making an authority's certificate
# and storing it, is completed with a new version of that authority's key.
path "transit/keys/provost-issuing/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-timestamp/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}
