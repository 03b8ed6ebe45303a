# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Rotate the signer keys: make a new version, and see it. It cannot sign, and it
# cannot change a key: transit/keys/<key>/config could make the key exportable,
# for good, and is not granted. Rotation takes no parameters.
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

path "transit/keys/provost-evidence" {
  capabilities = ["read"]
}

path "transit/keys/provost-evidence/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}

path "transit/keys/provost-verdict" {
  capabilities = ["read"]
}

path "transit/keys/provost-verdict/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}
