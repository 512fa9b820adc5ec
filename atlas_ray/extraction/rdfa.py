"""The RDFa of a page, in the order of the document."""

from collections.abc import Iterator
from typing import Any

from extruct.rdfa import RDFaExtractor  # noqa: F401  # it adds the prefixes that shops use to pyRdfa's
from extruct.utils import parse_xmldom_html
from pyRdfa import Options, builtInTransformers
from pyRdfa.parse import parse_one_node
from pyRdfa.state import ExecutionContext
from pyRdfa.transform.prototype import handle_prototypes
from rdflib import RDF, BNode, Graph, URIRef
from rdflib.term import Node

from atlas_ray.extraction.decimals import price_text
from atlas_ray.extraction.page import Page, text_of

ELSEWHERE = ("content", "typeof", "resource", "href", "src", "datatype", "rel", "rev")
"""Attributes with which an element's value is not its text."""
MAX_LIST = 500


def rdfa_nodes(page: Page) -> list[dict[str, Any]]:
    """Return the page's RDFa as objects of expanded JSON-LD; those that no other refers to come first.

    Raises:
        RecursionError, ValueError, AttributeError, AssertionError: for markup that pyRdfa cannot read.
    """
    tree = parse_xmldom_html(page.text.encode("utf-8", "replace"), encoding="utf-8")
    for element in tree.xpath("//*[@property and *]"):
        if not any(name in element.attrib for name in ELSEWHERE):
            is_price = element.get("property", "").lower().endswith("price")
            element.set("content", price_text(element) if is_price else text_of(element))
    # As pyRdfa's `graph_from_DOM`, which copies its graph in the order of a set: another in every process.
    graph = Graph(store="SimpleMemory")
    options = Options(space_preserve=True, vocab_cache=False, vocab_cache_report=False)
    root = tree.documentElement
    state = ExecutionContext(root, graph, base=page.base_url or "", options=options)
    for transform in builtInTransformers:
        transform(root, options, state)
    parse_one_node(root, graph, None, state, [])
    handle_prototypes(graph)
    nodes: dict[Node, dict[str, Any]] = {}
    inner: set[str] = set()
    for subject, predicate, value in graph:
        node = nodes.setdefault(subject, {"@id": _name(subject)})
        if predicate == RDF.type:
            node.setdefault("@type", []).append(str(value))
            continue
        for entry in _entries(graph, value):
            if isinstance(entry, URIRef | BNode):
                inner.add(_name(entry))
                node.setdefault(str(predicate), []).append({"@id": _name(entry)})
            else:
                node.setdefault(str(predicate), []).append({"@value": str(entry)})
    return sorted(nodes.values(), key=lambda node: node["@id"] in inner)


def _name(node: Node) -> str:
    return f"_:{node}" if isinstance(node, BNode) else str(node)


def _entries(graph: Graph, value: Node) -> Iterator[Node]:
    """Yield a value, or the entries of the list that it is."""
    if graph.value(value, RDF.first) is None:
        yield value
        return
    seen: set[Node] = set()
    link: Node | None = value
    while link is not None and link not in seen and len(seen) < MAX_LIST:
        seen.add(link)
        if (entry := graph.value(link, RDF.first)) is not None:
            yield entry
        link = graph.value(link, RDF.rest)
