# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Rotate the signer keys: make a new version, see it, and retire old ones, so that
# nobody can sign with them, whatever token they stole. It cannot sign.
#
# transit/keys/<key>/config could also make the key exportable or allow plaintext
# backups, both for good, allow it to be deleted, hide old public keys
# (min_decryption_version) and rotate by itself. None of that is allowed: what is not
# listed is denied. Rotation takes no parameters.
#
# What this cannot keep from whoever steals it: to set min_encryption_version too
# high, which stops a signer, or back, which lets retired versions sign again for a
# token that may sign. Vault's policies know no "only upwards". A version that must
# never sign again whoever is robbed is trimmed by an operator (README.md), or its
# interval revoked (provost keys revoke).
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-rotate.hcl | vault policy write provost-rotate -

path "transit/keys/provost-provenance" {
  capabilities = ["read"]
}

path "transit/keys/provost-provenance/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-provenance/config" {
  capabilities        = ["update"]
  required_parameters = ["min_encryption_version"]
  allowed_parameters  = { "min_encryption_version" = [] }
}

path "transit/keys/provost-evidence" {
  capabilities = ["read"]
}

path "transit/keys/provost-evidence/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-evidence/config" {
  capabilities        = ["update"]
  required_parameters = ["min_encryption_version"]
  allowed_parameters  = { "min_encryption_version" = [] }
}

path "transit/keys/provost-verdict" {
  capabilities = ["read"]
}

path "transit/keys/provost-verdict/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-verdict/config" {
  capabilities        = ["update"]
  required_parameters = ["min_encryption_version"]
  allowed_parameters  = { "min_encryption_version" = [] }
}
