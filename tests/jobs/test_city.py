from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from jobs import city as module


class NoTraffic:
    """A generator whose every draw of the traffic is one."""

    def lognormal(self, mean, sigma, shape):
        return np.ones(shape)


@pytest.fixture(scope="module")
def city():
    return module.build_city()


@pytest.fixture(scope="module")
def graph(city):
    seconds = city._seconds()
    start, column = np.nonzero(np.isfinite(seconds))
    count = len(city.places)
    return csr_matrix((seconds[start, column], (start, city.neighbours[start, column])), (count, count))


def test_the_same_seed_builds_the_same_city_and_another_one_another(city):
    module.build_city.cache_clear()
    again, other = module.build_city(), module.build_city(1)
    assert again is not city
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(city, again, strict=True))
    assert not np.array_equal(other.places[:100], city.places[:100])


def test_every_crossing_can_be_reached_and_roads_go_both_ways(graph):
    assert connected_components(graph, directed=False)[0] == 1
    assert abs(graph - graph.T).max() == 0


def test_trips_begin_more_often_in_the_centres_than_elsewhere(city):
    assert city.demand.sum() == pytest.approx(1)
    downtown = np.linalg.norm(city.places - module.CENTRES[0][:2], axis=1) < 500
    assert city.demand[downtown].mean() > 3 * city.demand.mean()


def test_the_river_is_crossed_by_a_few_bridges_of_large_roads_alone(city):
    def crossings(kind):
        (x, y), (x2, y2) = np.moveaxis(city.segments(kind), 0, -1)
        return int(((y > np.interp(x, *city.river.T)) != (y2 > np.interp(x2, *city.river.T))).sum())

    assert crossings(module.STREET) == 0
    assert 2 <= crossings(module.ARTERIAL) <= 6
    assert 2 <= crossings(module.EXPRESSWAY) <= 4


def test_routes_follow_roads_from_origin_to_destination(city):
    draw = np.random.default_rng(0)
    origins, destinations = draw.integers(len(city.places), size=(2, 300))
    routes = city.routes(origins, destinations, draw)
    assert np.array_equal(routes[:, 0], origins)
    assert np.array_equal(routes[:, -1], destinations)
    is_road = (city.neighbours[routes[:, :-1]] == routes[:, 1:, None]).any(-1)
    has_ended = routes[:, :-1] == destinations[:, None]
    assert (is_road | has_ended).all()


def test_routes_are_the_fastest_by_an_independent_search(city, graph):
    draw = np.random.default_rng(1)
    origins, destinations = draw.integers(len(city.places), size=(2, 40))
    routes = city.routes(origins, destinations, NoTraffic())
    seconds = [sum(graph[a, b] for a, b in pairwise(way) if a != b) for way in routes]
    fastest = dijkstra(graph, indices=origins)[np.arange(40), destinations]
    np.testing.assert_allclose(seconds, fastest, rtol=1e-5)
