// SPDX-License-Identifier: Apache-2.0

package death

import "testing"

func TestWorkloadOf(t *testing.T) {
	const alloc = "5f1e8a2c-9b7d-4e31-8c0a-6d2f4b1e9a77"
	for _, tc := range []struct {
		what, name string
		labels     map[string]string
		kind, want string
	}{
		{"compose", "shop-web-1", map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "com.docker.compose.container-number": "1"}, WorkloadCompose, "shop/web"},
		{"a service without a project", "web", map[string]string{"com.docker.compose.service": "web"}, WorkloadCompose, "web"},
		{"a project alone is no workload", "x", map[string]string{"com.docker.compose.project": "shop"}, "", ""},
		{"ECS", "ecs-cart-7-worker-d0fbe4a8c3e5d1f2aa01", map[string]string{
			"com.amazonaws.ecs.cluster": "prod", "com.amazonaws.ecs.container-name": "worker",
			"com.amazonaws.ecs.task-arn":                "arn:aws:ecs:eu-west-1:111122223333:task/prod/0f9de17a6465404e8b1b2356dc13c2f8",
			"com.amazonaws.ecs.task-definition-family":  "cart",
			"com.amazonaws.ecs.task-definition-version": "7",
		}, WorkloadECS, "cart/worker"},
		{"Nomad with its extra labels", "server-" + alloc, map[string]string{
			nomadAlloc: alloc, "com.hashicorp.nomad.job_name": "redis", "com.hashicorp.nomad.task_name": "server", "com.hashicorp.nomad.task_group_name": "cache",
		}, WorkloadNomad, "redis/server"},
		{"Nomad as it is", "server-" + alloc, map[string]string{nomadAlloc: alloc}, WorkloadNomad, "server"},
		{"Nomad, another name", "server", map[string]string{nomadAlloc: alloc}, "", ""},
		{"none", "web", map[string]string{"maintainer": "x"}, "", ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := WorkloadOf(tc.name, tc.labels)
			switch {
			case tc.want == "" && w != nil:
				t.Errorf("got %+v, want none", w)
			case tc.want != "" && (w == nil || w.Kind != tc.kind || w.String() != tc.want):
				t.Errorf("got %+v, want %s %s", w, tc.kind, tc.want)
			}
		})
	}
}
