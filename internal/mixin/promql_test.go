// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// words of PromQL that are no metrics, as far as the expressions use them: a
// new one is added here, or is taken for a metric that is not in the table.
const words = `and or unless by without on ignoring offset bool time vector absent sum max min count topk bottomk rate increase
clamp_min min_over_time max_over_time last_over_time histogram_quantile`

// inspect finds the metrics of an expression, and what is wrong with them.
// Matchers must be labels of their metric, and what is grouped by one of every
// metric in the expression.
func inspect(expr string, known map[string][]string) (names, problems []string) {
	expr = regexp.MustCompile(`"(\\.|[^"\\])*"`).ReplaceAllString(expr, `""`)
	expr = regexp.MustCompile(`\[[^\]]*\]|offset \S+|\$\w+`).ReplaceAllString(expr, " ")
	var grouped []string
	expr = regexp.MustCompile(`\b(by|without|on|ignoring) \(([^)]*)\)`).ReplaceAllStringFunc(expr, func(s string) string {
		list := s[strings.Index(s, "(")+1 : len(s)-1]
		for _, l := range strings.Split(list, ",") {
			grouped = append(grouped, strings.TrimSpace(l))
		}
		return " "
	})
	for _, m := range regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?`).FindAllStringSubmatch(expr, -1) {
		if slices.Contains(strings.Fields(words), m[1]) {
			continue
		}
		names = append(names, m[1])
		labels, ok := known[m[1]]
		if !ok {
			problems = append(problems, fmt.Sprintf("no metric %s in the table", m[1]))
			continue
		}
		used := slices.Clone(grouped)
		for _, l := range regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)`).FindAllStringSubmatch(m[2], -1) {
			used = append(used, l[1])
		}
		for _, l := range used {
			if !slices.Contains(labels, l) {
				problems = append(problems, fmt.Sprintf("%s has no label %s", m[1], l))
			}
		}
	}
	return names, problems
}
