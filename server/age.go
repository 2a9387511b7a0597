package server

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/keywright/keywright/server/internal/identity"
)

// aged ends HTTP connections that have reached their age, after the request under
// way. With HTTP/2 net/http turns the header into a GOAWAY, after which streams
// that are open finish.
func aged(next http.Handler, age time.Duration) http.Handler {
	if age <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Spread over a tenth, as gRPC does, so that not all come back at once.
		if identity.FromContext(r.Context()).Age() > age-age/20+rand.N(age/10+1) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
