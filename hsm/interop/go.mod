// What the tests of this directory need is no dependency of Keywright.
module github.com/keywright/keywright/hsm/interop

go 1.26.0

require (
	github.com/ThalesGroup/crypto11 v1.6.2
	github.com/keywright/keywright v0.0.0
	github.com/miekg/pkcs11 v1.1.2
)

require (
	github.com/pkg/errors v0.9.1 // indirect
	github.com/thales-e-security/pool v0.0.2 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)

replace github.com/keywright/keywright => ../..
