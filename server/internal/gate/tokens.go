package gate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keywright/keywright/kms"
)

// tokenGauge is a figure of each token of the configuration.
type tokenGauge struct {
	description *prometheus.Desc
	read        func(*kms.TokenStatus) float64
}

func tokenGauges() []tokenGauge {
	level := func(name, help string, read func(*kms.TokenStatus) float64) tokenGauge {
		return tokenGauge{prometheus.NewDesc(name, help, []string{"token"}, nil), read}
	}
	return []tokenGauge{
		level("keywright_token_healthy", "1 if the token answers.", func(t *kms.TokenStatus) float64 { return truth(t.HSM.Healthy) }),
		level("keywright_token_sealed", "1 while the keys of the token's namespaces are dropped from memory, because it is away.",
			func(t *kms.TokenStatus) float64 { return truth(!t.Sealed.IsZero()) }),
		level("keywright_token_away_seconds", "For how long the token has not answered; 0: it does.", awaySeconds),
		level("keywright_token_root_version", "Version of the root key in force on the token; 0: none.", func(t *kms.TokenStatus) float64 { return float64(t.RootVersion) }),
		level("keywright_token_sessions_in_use", "Sessions with the token in use.", func(t *kms.TokenStatus) float64 { return float64(t.HSM.SessionsInUse) }),
		level("keywright_token_sessions_max", "Most sessions with the token.", func(t *kms.TokenStatus) float64 { return float64(t.HSM.SessionsMax) }),
	}
}

func awaySeconds(t *kms.TokenStatus) float64 {
	if t.Away.IsZero() {
		return 0
	}
	return time.Since(t.Away).Seconds()
}

func (c *collector) collectTokens(out chan<- prometheus.Metric, status *kms.Status) {
	for i := range status.Tokens {
		for _, g := range c.tokens {
			out <- prometheus.MustNewConstMetric(g.description, prometheus.GaugeValue, g.read(&status.Tokens[i]), status.Tokens[i].Name)
		}
	}
}
