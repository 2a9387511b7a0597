package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/server"
	"github.com/keywright/keywright/softhsm"
)

// Exit codes that stand for no error of the table below.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // by a second signal, with work left undone
)

// failure is a kind of error that an operator handles in a way of its own.
type failure struct {
	code    int
	meaning string
	advice  string // appended to the message; "" where the message says it all
	errs    []error
}

// failures is the one table of exit codes; the first match counts.
func failures() []failure {
	return []failure{
		{exitUsage, "", "", []error{errAdmin, errIssue, errReason, worker.ErrByHand, errReports}},
		{3, "the configuration is invalid", "",
			[]error{config.ErrInvalid, hsm.ErrConfig}},
		{4, "the PKCS#11 module is missing or unusable",
			"check hsm.module, and install your HSM's PKCS#11 library; SoftHSM2, for development: apt-get install softhsm2",
			[]error{hsm.ErrModule}},
		{4, "", "", []error{softhsm.ErrNotInstalled}},
		{5, "the PIN was refused",
			"it is not tried again: check hsm.pin, and how many attempts the token has left, before you start anew",
			[]error{hsm.ErrPIN}},
		{6, "the token is not there, or is not the one that holds this installation's root key",
			"check hsm.token_label and hsm.token_serial; nothing was created on the token",
			[]error{hsm.ErrTokenNotFound, hsm.ErrAmbiguousToken, hsm.ErrRootNotFound, hsm.ErrWrongRoot,
				hsm.ErrDuplicateObject, hsm.ErrUnprotected, hsm.ErrSignerNotFound, softhsm.ErrLabel, softhsm.ErrIncomplete}},
		{7, "there is no installation yet", "check data_dir, or make an installation with keywrightd init",
			[]error{kms.ErrNotInitialized}},
		{8, "there is an installation already", "", []error{kms.ErrInitialized, errRemains}},
		{9, "another process uses the data directory", "stop it first, or give this one a data_dir of its own",
			[]error{store.ErrLocked, audit.ErrLocked}},
		{10, "an address is in use", "stop the other program, or choose other ports (listen; with dev: --port-base)",
			[]error{syscall.EADDRINUSE, server.ErrSocketInUse}},
		{11, "the HSM does not answer", "", []error{hsm.ErrUnavailable, hsm.ErrExhausted, hsm.ErrUnknownOutcome}},
		{12, "the disk is full", "", []error{store.ErrNoSpace, syscall.ENOSPC}},
		{13, "stored data is damaged, or of an unknown format", "restore data_dir from a backup",
			[]error{store.ErrCorrupt}},
		{13, "", "", []error{store.ErrFormat}},
		{14, "the store or the audit log was put back to an older state, or is not what it was", "",
			[]error{kms.ErrRollback, errDiffers}},
		{14, "", "if you put it back on purpose, keywrightd accept-rollback any-name tells what is to be accepted", []error{audit.ErrTampered}},
	}
}

// report prints an error in one line, with advice where there is some, and
// returns the exit code. A configuration gets one line for each problem.
func report(w io.Writer, err error) int {
	code, advice := exitFailure, ""
	if f, ok := classify(err); ok {
		code, advice = f.code, f.advice
	}
	message := strings.TrimRight(withCauses(err), "\n.")
	var own *kms.Error
	if errors.As(err, &own) { // its code is for programs
		message = strings.Replace(message, own.Error(), own.Message, 1)
	}
	if advice != "" {
		message += ": " + advice
	}
	for line := range strings.SplitSeq(message, "\n") {
		fmt.Fprintln(w, "keywrightd: "+line)
	}
	return code
}

// withCauses says also what kms keeps from callers: here the operator asks.
func withCauses(err error) string {
	message := err.Error()
	for e := (*kms.Error)(nil); errors.As(err, &e) && e.Cause != nil; err = e.Cause {
		message += ": " + e.Cause.Error()
	}
	return message
}

func classify(err error) (failure, bool) {
	if kms.CodeOf(err) == kms.DataLoss {
		err = errors.Join(err, store.ErrCorrupt)
	}
	for _, f := range failures() {
		for _, target := range f.errs {
			if errors.Is(err, target) {
				return f, true
			}
		}
	}
	return failure{}, false
}

// exitCodesHelp explains the exit codes to operators.
func exitCodesHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n   0  success\n   1  any other failure\n   2  wrong usage\n")
	for _, f := range failures() {
		if f.meaning != "" {
			fmt.Fprintf(&b, "  %2d  %s\n", f.code, f.meaning)
		}
	}
	fmt.Fprintf(&b, " %3d  ended by a second signal\n", exitInterrupted)
	return b.String()
}
