"""Validates an SBOM by the JSON schema of SPDX 2.3, and a provenance statement by the types of in-toto.

Usage: validate.py SCHEMA SBOM STATEMENT"""

import json
import sys

import jsonschema
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


schema, sbom, statement = map(load, sys.argv[1:])
jsonschema.validate(sbom, schema)
Statement.copy_from_pb(ParseDict(statement, statement_pb2.Statement())).validate()
# An unknown field is an error.
ParseDict(statement["predicate"], provenance_pb2.Provenance())
