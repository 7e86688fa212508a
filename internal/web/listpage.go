// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// listLength is how many deaths a page of the list shows, and maxListLength
// how many at most: a page is made whole. The link to older ones goes on.
const (
	listLength    = 50
	maxListLength = 200
)

// listView is the page of the newest deaths.
type listView struct {
	frame
	Query    api.Query
	Since    string // as it was asked for
	Until    string
	Causes   []causeChoice
	Filtered bool // by anything
	Detailed bool // by more than the first row of the form
	Older    bool // not the first page
	Days     []day
	Count    int
	NextURL  string
	FirstURL string
	JSONURL  string
}

// causeChoice is a cause in the form.
type causeChoice struct {
	death.CauseInfo
	Chosen bool
}

// day is the deaths of one day, by UTC.
type day struct {
	Name   string
	Deaths []*death.Death
}

// listPage serves GET /.
func (h *handler) listPage(w http.ResponseWriter, r *http.Request) {
	q, err := h.query(r)
	if err != nil {
		h.errorPage(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if q.Limit == 0 {
		q.Limit = listLength
	}
	q.Limit = min(q.Limit, maxListLength)
	page, err := h.Store.List(r.Context(), q)
	if err != nil {
		code, text := h.failed(r, err)
		h.errorPage(w, r, code, text)
		return
	}
	given := r.URL.Query()
	v := listView{
		frame: h.frame(r, "Deaths"), Query: q, Since: given.Get("since"), Until: given.Get("until"),
		Count: len(page.Deaths), Days: byDay(page.Deaths, h.Now()), Older: q.Cursor != "",
	}
	for _, i := range death.Causes() {
		v.Causes = append(v.Causes, causeChoice{i, slices.Contains(q.Cause, i.Cause)})
	}
	v.Detailed = len(q.Cause) > 0 || q.Pod != "" || q.Container != "" || q.Node != "" || q.Unit != "" || v.Until != ""
	v.Filtered = v.Detailed || q.Namespace != "" || q.Q != "" || v.Since != ""

	h.link(&v, given, page)
	h.render(w, r, http.StatusOK, h.pages.list, v)
}

// link fills in where one can go on from this page.
func (h *handler) link(v *listView, given url.Values, page Page) {
	given.Del("cursor")
	for name := range given {
		if given.Get(name) == "" {
			given.Del(name)
		}
	}
	v.FirstURL = h.base + "/" + encoded(given)
	v.JSONURL = h.base + api.PathDeaths + encoded(given)
	if page.Next != "" {
		next := url.Values{"cursor": {page.Next}}
		for name, values := range given {
			next[name] = values
		}
		v.NextURL = h.base + "/" + encoded(next)
	}
	if !v.Older && v.Until == "" {
		live := v.Query.Values()
		live.Del("limit")
		live.Del("since")
		live.Set(lastIDParameter, strconv.FormatInt(page.Seq, 10))
		v.Live = h.base + api.PathStream + encoded(live)
	}
}

func encoded(v url.Values) string {
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// byDay cuts a list, newest first, into days.
func byDay(deaths []death.Death, now time.Time) []day {
	var days []day
	today := now.UTC().Format(time.DateOnly)
	yesterday := now.UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	last := ""
	for i := range deaths {
		t := deaths[i].Time.UTC()
		date := t.Format(time.DateOnly)
		if date != last || len(days) == 0 {
			name := t.Format("Monday, 2 January 2006")
			switch date {
			case today:
				name = "Today"
			case yesterday:
				name = "Yesterday"
			}
			days, last = append(days, day{Name: name}), date
		}
		d := &days[len(days)-1]
		d.Deaths = append(d.Deaths, &deaths[i])
	}
	return days
}
