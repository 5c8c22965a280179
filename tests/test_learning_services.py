"""BM25, KNN, Bayes and Recommend, each against an independent implementation."""

from collections import Counter
from math import log
from random import Random

import numpy as np
import pytest
from scipy.spatial import cKDTree

from microservices.bayes import Bayes, synthetic_mail, synthetic_training
from microservices.bm25 import Bm25, synthetic_documents, words_of
from microservices.errors import ServiceError
from microservices.knn import Knn, synthetic_clusters
from microservices.recommend import Recommend
from microservices.records import Record
from microservices.state import State, reshard

STATE = State()


def bm25_by_the_formula(documents, query, k1=1.2, b=0.75):
    words = [d.lower().split() for d in documents]
    average = sum(map(len, words)) / len(words)
    scores = {}
    for number, document in enumerate(words):
        for word in query.lower().split():
            holding = sum(word in d for d in words)
            f = document.count(word)
            if f:
                idf = log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
                scores[number] = scores.get(number, 0) + idf * f / (f + k1 * (1 - b + b * len(document) / average))
    return scores


def test_bm25_scores_as_lucenes_formula_says() -> None:
    documents, service, draw = synthetic_documents(3, 80, 300), Bm25(synthetic_documents(3, 80, 300)), Random(1)
    for _ in range(60):
        query = " ".join(f"w{int(draw.paretovariate(0.6))}" for _ in range(4))
        scores = bm25_by_the_formula(documents, query)
        ours = service.answer(Record("q", text=query), STATE, 0.0)
        expected = sorted(scores.items(), key=lambda entry: (-round(entry[1], 9), entry[0]))[:10]
        assert [round(s, 9) for _, s in ours] == [round(s, 9) for _, s in expected]
        assert all(round(scores[n], 9) == round(s, 9) for n, s in ours)


def test_bm25_ranks_as_the_rank_bm25_package_where_their_formulas_agree() -> None:
    """Okapi's idf differs from Lucene's, so one-word queries: there only the idf, a common factor, does."""
    rank_bm25 = pytest.importorskip("rank_bm25")
    documents = synthetic_documents(4, 100, 300)
    theirs = rank_bm25.BM25Okapi([words_of(d) for d in documents], k1=1.2, b=0.75)
    service = Bm25(documents, top=100)
    for word in ("w20", "w33", "w57", "w90"):
        scores = theirs.get_scores([word])
        ours = service.answer(Record("q", text=word), STATE, 0.0)
        assert len(ours) == np.count_nonzero(scores) > 0
        factors = [scores[n] / s for n, s in ours]
        assert np.allclose(factors, factors[0])


def test_bm25_knows_no_word_and_needs_one() -> None:
    service = Bm25(["A cat. A dog!", "Fish"], top=5)
    assert service.answer(Record("q", text="bird ?"), STATE, 0.0) == []
    assert [n for n, _ in service.answer(Record("q", text="FISH cat"), STATE, 0.0)] == [1, 0]
    for wrong in (lambda: Bm25([]), lambda: Bm25(["..."]), lambda: Bm25(top=0), lambda: Bm25(b=2.0)):
        with pytest.raises(ServiceError):
            wrong()


@pytest.mark.parametrize("k", [1, 5, 30])
def test_knn_votes_with_the_neighbours_that_scipys_tree_finds(k) -> None:
    points, labels = synthetic_clusters(seed=7)
    service, tree, draw = Knn(points, labels, k), cKDTree(points), np.random.default_rng(k)
    for vector in draw.uniform(0, 10, (150, 8)):
        votes = Counter(labels[i] for i in np.atleast_1d(tree.query(vector, k)[1]))
        expected = min(votes, key=lambda label: (-votes[label], label))
        assert service.answer(Record("x", values=tuple(vector)), STATE, 0.0) == expected


def test_knn_agrees_with_scikit_learn_on_its_iris_and_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    neighbors = pytest.importorskip("sklearn.neighbors")
    for data in (datasets.load_iris(), datasets.load_digits()):
        train, test = slice(None, None, 2), slice(1, None, 2)
        theirs = neighbors.KNeighborsClassifier(1, algorithm="brute").fit(data.data[train], data.target[train])
        ours = Knn(data.data[train].tolist(), [str(t) for t in data.target[train]], k=1)
        got = [ours.answer(Record("x", values=tuple(v)), STATE, 0.0) for v in data.data[test]]
        assert got == [str(t) for t in theirs.predict(data.data[test])]
        assert np.mean([g == str(t) for g, t in zip(got, data.target[test], strict=True)]) > 0.9


def test_knn_breaks_ties_by_place_then_by_name() -> None:
    points, labels = [[1.0], [-1.0], [1.0], [-1.0]], ["b", "a", "a", "b"]
    assert Knn(points, labels, k=1).answer(Record("x", values=(0.0,)), STATE, 0.0) == "b"
    assert Knn(points, labels, k=3).answer(Record("x", values=(0.0,)), STATE, 0.0) == "a"
    many = [[1.0 if i % 2 else -1.0] for i in range(200)]
    first = ["b"] * 26 + ["a"] * 174
    assert Knn(many, first, k=51).answer(Record("x", values=(0.0,)), STATE, 0.0) == "b"
    assert Knn(many, first, k=52).answer(Record("x", values=(0.0,)), STATE, 0.0) == "a"
    assert Knn(points, labels, k=4).answer(Record("x", values=(0.0,)), STATE, 0.0) == "a"


@pytest.mark.parametrize("make", [
    lambda: Knn([[1.0], [1.0, 2.0]], ["a", "b"]), lambda: Knn([[1.0]], ["a", "b"]), lambda: Knn([[1.0]], ["a"], k=2),
    lambda: Knn([[float("nan")]], ["a"], k=1), lambda: Knn().answer(Record("x", values=(1.0,)), STATE, 0.0),
    lambda: Bayes([], []), lambda: Bayes(["a"], []), lambda: Recommend(items=0), lambda: Recommend(top=0),
])
def test_a_model_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(ServiceError):
        make()


def test_bayes_multiplies_the_probabilities_that_counting_gives() -> None:
    texts, labels = ["a a b", "b c", "a d d"], ["x", "y", "x"]
    # x: 6 words, a 3, b 1, d 2; y: 2 words, b 1, c 1; 4 words in the vocabulary; priors 2/3 and 1/3.
    expected = [log(2 / 3 * 4 / 10 * 2 / 10 * 1 / 10), log(1 / 3 * 1 / 6 * 2 / 6 * 2 / 6)]
    service = Bayes(texts, labels)
    assert service.log_posteriors("a b unknown c") == pytest.approx(expected)
    assert service.answer(Record("m", text="nothing known"), STATE, 0.0) == "x"


def test_bayes_agrees_with_scikit_learn_and_is_mostly_right() -> None:
    naive_bayes = pytest.importorskip("sklearn.naive_bayes")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    texts, labels = synthetic_training()
    vectors = text.CountVectorizer(token_pattern=r"[a-z0-9]+")
    theirs = naive_bayes.MultinomialNB(alpha=1.0).fit(vectors.fit_transform(texts), labels)
    service, draw = Bayes(texts, labels), Random(5)
    mails = [synthetic_mail(draw, i % 3 == 0) for i in range(300)]
    ours = [service.log_posteriors(m) for m in mails]
    assert np.allclose(ours, theirs.predict_joint_log_proba(vectors.transform(mails)))
    right = [service.answer(Record("m", text=m), STATE, 0.0) == ("spam" if i % 3 == 0 else "ham")
             for i, m in enumerate(mails)]
    assert sum(right) > 285


def recommended(ratings, user, items, neighbours):
    """The definition, one item and one user at a time."""
    def similarity(a, b):
        dot = sum(a.get(i, 0) * b.get(i, 0) for i in range(items))
        return dot / (sum(v * v for v in a.values()) * sum(v * v for v in b.values())) ** 0.5
    predicted = {}
    near = sorted((-similarity(ratings[user], r), name) for name, r in ratings.items() if name != user)
    for item in set(range(items)) - ratings[user].keys():
        votes = [(-s, ratings[name][item]) for s, name in near if item in ratings[name] and s < 0][:neighbours]
        if votes:
            predicted[item] = sum(s * r for s, r in votes) / sum(s for s, _ in votes)
    return predicted


@pytest.mark.parametrize("seed", range(5))
def test_recommendations_are_those_of_the_definition(seed) -> None:
    draw, service = Random(seed), Recommend(items=12, top=4, neighbours=3)
    state, ratings = service.new_state(), {}
    for _ in range(150):
        user, item, rating = f"u{draw.randrange(15)}", draw.randrange(12), draw.randint(1, 10) / 2
        ratings.setdefault(user, {})[item] = rating
        ours = service.answer(Record(user, values=(float(item), rating)), state, 0.0)
        predicted = recommended(ratings, user, 12, 3)
        best = sorted(predicted.values(), reverse=True)[:4]
        assert [s for _, s in ours] == pytest.approx(best)
        assert all(predicted[i] == pytest.approx(s) for i, s in ours)


def test_recommendations_without_a_new_rating_change_nothing_and_shards_keep_their_users() -> None:
    service = Recommend(items=4)
    state = service.new_state()
    for user, item, rating in (("a", 0, 5.0), ("a", 1, 4.0), ("b", 0, 5.0)):
        service.answer(Record(user, values=(float(item), rating)), state, 0.0)
    before = state.snapshot()
    assert service.answer(Record("b"), state, 0.0) == [(1, pytest.approx(4.0))]
    assert state.snapshot() == before
    parts = reshard([state], [0, 1] * 128)
    assert sum(len(p.hashtables["ratings"]) for p in parts) == 2


@pytest.mark.parametrize("values", [(1.0,), (64.0, 3.0), (-1.0, 3.0), (0.5, 3.0), (0.0, 0.0), (0.0, 5.5)])
def test_a_rating_out_of_its_limits_is_an_error_and_not_stored(values) -> None:
    service = Recommend()
    state = service.new_state()
    with pytest.raises(ServiceError):
        service.answer(Record("u", values=values), state, 0.0)
    assert len(state.hashtables["ratings"]) == 0


def test_a_prediction_is_never_a_rounding_above_the_highest_rating() -> None:
    """Means of fives, weighted by such similarities, come out at up to 5.000000000000001 before they are cut."""
    draw, service = Random(3), Recommend(items=8, neighbours=20)
    state, highest = service.new_state(), 0.0
    for _ in range(600):
        values = (float(draw.randrange(8)), draw.choice((5.0, 5.0, 4.5, 0.5)))
        found = service.answer(Record(f"u{draw.randrange(60)}", values=values), state, 0.0)
        highest = max([highest, *(score for _, score in found)])
    assert highest == 5.0
