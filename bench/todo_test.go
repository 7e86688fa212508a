package bench

import "testing"

func measureStart(t *testing.T, r *Report)     {}
func measureRest(t *testing.T, r *Report)      {}
func measureKills(t *testing.T, r *Report)     {}
func measureStorm(t *testing.T, r *Report)     {}
func filesystem(t *testing.T, d string) string { return "" }
