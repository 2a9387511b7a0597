package api

import (
	"google.golang.org/grpc"

	"github.com/keywright/keywright/kms/audit"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/translate"
)

func (a *API) auditStreams() []grpc.StreamDesc {
	return []grpc.StreamDesc{{StreamName: "TailEntries", Handler: a.tailEntries, ServerStreams: true}}
}

func (a *API) tailEntries(_ any, stream grpc.ServerStream) error {
	s, q := stream.(*gate.OpenStream), new(pb.TailEntriesRequest)
	if err := gate.Receive(s.RecvMsg, q); err != nil {
		return err
	}
	filter, backlog, err := translate.TailEntries(q)
	if err != nil {
		return err
	}
	return a.service.TailAudit(s.Context(), s.Call(), filter, backlog, func(e audit.Entry) error {
		if err := s.Current(); err != nil {
			return err
		}
		return s.SendMsg(translate.Entry(e))
	})
}
