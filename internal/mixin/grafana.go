// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// The part of Grafana's dashboard model, by its schema 39, that the dashboards
// use.
type (
	dashboard struct {
		UID           string     `json:"uid"`
		Title         string     `json:"title"`
		Description   string     `json:"description"`
		Tags          []string   `json:"tags"`
		SchemaVersion int        `json:"schemaVersion"`
		Editable      bool       `json:"editable"`
		Refresh       string     `json:"refresh"`
		Time          span       `json:"time"`
		Templating    templating `json:"templating"`
		Links         []link     `json:"links"`
		Panels        []panel    `json:"panels"`
	}
	span struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	templating struct {
		List []variable `json:"list"`
	}
	variable struct {
		Name       string      `json:"name"`
		Label      string      `json:"label,omitempty"`
		Type       string      `json:"type"`
		Query      string      `json:"query"`
		Datasource *datasource `json:"datasource,omitempty"`
		Refresh    int         `json:"refresh,omitempty"` // 2: when the time range changes
		Sort       int         `json:"sort,omitempty"`    // 1: by name
		IncludeAll bool        `json:"includeAll,omitempty"`
		AllValue   string      `json:"allValue,omitempty"`
	}
	datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	link struct {
		Title       string   `json:"title"`
		Type        string   `json:"type"`
		Tags        []string `json:"tags"`
		KeepTime    bool     `json:"keepTime"`
		IncludeVars bool     `json:"includeVars"`
	}
	panel struct {
		ID              int              `json:"id"`
		Type            string           `json:"type"`
		Title           string           `json:"title"`
		Description     string           `json:"description"`
		Datasource      datasource       `json:"datasource"`
		GridPos         position         `json:"gridPos"`
		Interval        string           `json:"interval,omitempty"`
		Targets         []target         `json:"targets"`
		FieldConfig     fieldConfig      `json:"fieldConfig"`
		Options         map[string]any   `json:"options"`
		Transformations []transformation `json:"transformations,omitempty"`
	}
	position struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	target struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat,omitempty"`
		Format       string `json:"format"` // time_series or table
		Instant      bool   `json:"instant"`
		Range        bool   `json:"range"`
	}
	fieldConfig struct {
		Defaults  fieldDefaults `json:"defaults"`
		Overrides []override    `json:"overrides"`
	}
	fieldDefaults struct {
		Unit       string         `json:"unit,omitempty"`
		Decimals   *int           `json:"decimals,omitempty"`
		Min        *int           `json:"min,omitempty"`
		NoValue    string         `json:"noValue,omitempty"`
		Thresholds *thresholds    `json:"thresholds,omitempty"`
		Custom     map[string]any `json:"custom,omitempty"`
	}
	thresholds struct {
		Mode  string `json:"mode"`
		Steps []step `json:"steps"`
	}
	step struct {
		Color string   `json:"color"`
		Value *float64 `json:"value"` // nil: from the bottom
	}
	override struct {
		Matcher    matcher    `json:"matcher"`
		Properties []property `json:"properties"`
	}
	matcher struct {
		ID      string `json:"id"`
		Options string `json:"options"`
	}
	property struct {
		ID    string `json:"id"`
		Value any    `json:"value"`
	}
	transformation struct {
		ID      string         `json:"id"`
		Options map[string]any `json:"options"`
	}
)

// source is what the reader of a dashboard chooses.
func source() datasource { return datasource{"prometheus", "${datasource}"} }

// chosen is a variable with the values of a label.
func chosen(label, selector string) variable {
	ds := source()
	return variable{
		Name: label, Type: "query", Query: fmt.Sprintf("label_values(%s, %s)", selector, label), Datasource: &ds,
		Refresh: 2, Sort: 1, IncludeAll: true, AllValue: ".*",
	}
}

// query is one line of a panel.
type query struct{ expr, legend string }

// graph shows how queries went.
func graph(title, unit string, queries ...query) panel {
	p := made("timeseries", title, unit, queries)
	p.FieldConfig.Defaults.Min = new(int)
	p.Options = map[string]any{"legend": map[string]any{"displayMode": "list", "placement": "bottom"}, "tooltip": map[string]any{"mode": "multi", "sort": "desc"}}
	return p
}

// bars is a graph of what happened in each interval.
func bars(title string, queries ...query) panel {
	p := graph(title, "short", queries...)
	p.Interval = "1m" // a shorter one would have no two scrapes
	p.FieldConfig.Defaults.Decimals = new(int)
	p.FieldConfig.Defaults.Custom = map[string]any{"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": map[string]any{"mode": "normal"}}
	return p
}

// number is one figure, red from the given one on; 0: never.
func number(title, unit string, red float64, expr string) panel {
	p := made("stat", title, unit, []query{{expr: expr}})
	p.now("time_series")
	p.FieldConfig.Defaults.NoValue = "–"
	p.FieldConfig.Defaults.Thresholds = &thresholds{"absolute", []step{{"green", nil}}}
	if red > 0 {
		p.FieldConfig.Defaults.Thresholds.Steps = append(p.FieldConfig.Defaults.Thresholds.Steps, step{"red", &red})
	}
	p.Options = map[string]any{"colorMode": "value", "graphMode": "none", "reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}}
	return p
}

// table lists what is now; its last column is the value, under the given name,
// the highest first.
func table(title, unit, value, expr string) panel {
	return listed(title, unit, value, expr, true)
}

func listed(title, unit, value, expr string, descending bool) panel {
	p := made("table", title, "", []query{{expr: expr}})
	p.now("table")
	p.Options = map[string]any{"showHeader": true, "sortBy": []map[string]any{{"displayName": value, "desc": descending}}}
	p.Transformations = []transformation{{"organize", map[string]any{
		"excludeByName": map[string]bool{"Time": true, "__name__": true, "job": true, "endpoint": true, "service": true},
		"renameByName":  map[string]string{"Value": value},
	}}}
	p.FieldConfig.Overrides = []override{{matcher{"byName", value}, []property{{"unit", unit}}}}
	return p
}

func made(kind, title, unit string, queries []query) panel {
	p := panel{Type: kind, Title: title, Datasource: source(), FieldConfig: fieldConfig{Defaults: fieldDefaults{Unit: unit}, Overrides: []override{}}}
	for i, q := range queries {
		p.Targets = append(p.Targets, target{RefID: string(rune('A' + i)), Expr: q.expr, LegendFormat: q.legend, Format: "time_series", Range: true})
	}
	p.Description = help(queries)
	return p
}

// now asks for the present alone.
func (p *panel) now(format string) {
	for i := range p.Targets {
		p.Targets[i].Instant, p.Targets[i].Range, p.Targets[i].Format = true, false, format
	}
}

// help is what the metrics' table says of the metrics in queries.
func help(queries []query) string {
	var said []string
	for _, m := range metrics.Table() {
		name := m.Name
		if m.Type == "histogram" {
			name += "_bucket"
		}
		for _, q := range queries {
			if uses(q.expr, name) {
				said = append(said, m.Name+": "+m.Help)
				break
			}
		}
	}
	return strings.Join(said, "\n\n")
}

// uses tells whether a name stands in an expression as a whole word.
func uses(expr, name string) bool {
	_, after, found := strings.Cut(expr, name)
	for found {
		if after == "" || !strings.ContainsAny(after[:1], "_abcdefghijklmnopqrstuvwxyz") {
			return true
		}
		_, after, found = strings.Cut(after, name)
	}
	return false
}

// width is how many columns Grafana's grid has.
const width = 24

// row sets panels side by side, below those before.
func (d *dashboard) row(height int, panels ...panel) {
	y := 0
	for _, p := range d.Panels {
		y = max(y, p.GridPos.Y+p.GridPos.H)
	}
	for i, p := range panels {
		w := width / len(panels)
		p.ID, p.GridPos = len(d.Panels)+1, position{height, w, i * w, y}
		d.Panels = append(d.Panels, p)
	}
}

func (d *dashboard) json() ([]byte, error) {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("dashboard %s as JSON: %w", d.UID, err)
	}
	return append(text, '\n'), nil
}
