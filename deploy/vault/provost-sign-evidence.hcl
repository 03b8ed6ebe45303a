# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Sign evidence (SBOMs, scans, VEX): with the evidence key and nothing else. No
# rotation, no change of the key, no export, no backup, no CSR (which is a signature
# too), no HMAC.
# What each parameter rule closes, and how to tighten it to listed versions: README.md.
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-sign-evidence.hcl | vault policy write provost-sign-evidence -

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
