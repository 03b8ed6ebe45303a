# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Make the ten keys: for a one-off ceremony, with a token that is revoked after it.
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

path "transit/keys/provost-issuing-provenance" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-issuing-evidence" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-issuing-verdict" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-timestamp" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-log" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-ctlog" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

path "transit/keys/provost-tuf" {
  capabilities       = ["update", "read"]
  allowed_parameters = { "type" = ["ecdsa-p256"] }
  denied_parameters  = { "type" = [""] }
}

# A ceremony that was killed half-way, between making an authority's certificate
# and storing it, is completed with a new version of that authority's key; a later
# ceremony renews an authority, or begins a new shard of a log, with a new version.
path "transit/keys/provost-issuing-provenance/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-issuing-evidence/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-issuing-verdict/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-timestamp/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-log/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-ctlog/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}
