package kms

func errStub() error {
	return &Error{Code: Unavailable, Reason: "NOT_IMPLEMENTED", Message: "not implemented"}
}
