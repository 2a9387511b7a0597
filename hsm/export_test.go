package hsm

// WithRootWrap is a configuration whose new root keys have that mechanism.
func WithRootWrap(c Config, m Mechanism) Config {
	c.rootWrap = m
	return c
}
