// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
)

// TestDeath_Kind: what a container is to its pod is of its death, also where
// another engine has the say of its names.
func TestDeath_Kind(t *testing.T) {
	sc := &scene{}
	prepare := podMain
	prepare.Container.Kind = death.KindInit
	sigs := append(inKube(sc), sc.sig("kube", prepare), sc.sig("cri", podMain), sc.sig("kube", kubeExit(3, "Error")))
	if d := only(t, answering(New(Options{}), sigs...)); d.Container.Kind != death.KindInit {
		t.Errorf("kind %q", d.Container.Kind)
	}
}
